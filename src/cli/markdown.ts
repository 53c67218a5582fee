/** The documentation page of the arguments, in the form of Llumnix's own. */
import { fileKey, type Section } from "./arguments/argument.ts";
import { entriesOf, type Entry } from "./arguments/index.ts";
import { statusText } from "./arguments/status.ts";
import { type Group, serveGroups } from "./arguments/tables.ts";
import { shown, shownDefault } from "./arguments/values.ts";
import { valueForm, wrap } from "./help.ts";

const width = 100;

const introduction = [
  "# Arguments of `llumnix serve`",
  "This page is made from the argument tables in `arguments/`, as are parser, configuration file " +
  "and `--help`. `deno run -A mod.ts help --markdown > src/cli/README.md` writes it anew.",
  "An option is written `--name value` or `--name=value`; the last one wins. A flag stands alone; " +
  "`--flag=false` turns off what a configuration file turns on. Underscores may stand for dashes " +
  "in names.",
  "A configuration file (`--config-file`) is YAML with the sections `SERVER`, `MANAGER` and " +
  "`ENGINE`, whose keys are named below, and optionally `_BASE_`, a file to inherit from (relative " +
  "to the file, `~` expanded). The command line wins over the file, the file over its base, and " +
  "the base over the default. `--print-config` shows what is in effect and where it comes from. " +
  "Files written for Llumnix load; their Ray keys are taken with a warning.",
  "An argument that is refused or not available yet may be given at its default; anything else " +
  "ends the program with exit code 2 and one line on stderr, as every bad argument does.",
];

/** The page, as \`deno fmt\` leaves it. */
export function argumentsPage(): string {
  const paragraphs = introduction.map((text) => wrap(text, width, ""));
  return [...paragraphs, ...serveGroups.map(groupText)].join("\n\n") + "\n";
}

function groupText(group: Group): string {
  return [`## ${group.title}`, ...entriesOf(group).map(entryText)].join("\n\n");
}

function entryText(entry: Entry): string {
  const { name, argument, section } = entry;
  const options = [`--${name}`, ...argument.aliases].map((option, i) =>
    i === 0 ? `\`${option}${valueForm(entry)}\`` : `\`${option}\``
  );
  const status = statusText(argument);
  const defaultText = shownDefault(argument);
  const points = [
    argument.help,
    argument.choices === null ? "" : `Possible choices: ${argument.choices.map(shown).join(", ")}`,
    defaultText === null ? "" : `Default: ${defaultText}`,
    section === null ? "" : `Config file: \`${fileName(section, name)}\``,
    status === "" ? "" : `**${status}**`,
  ];
  const items = points.filter(Boolean).map((point) => `- ${wrap(point, width, "  ").slice(2)}`);
  return [options.join(", "), "", ...items].join("\n");
}

function fileName(section: Section, name: string): string {
  return `${section}.${fileKey(name)}`;
}
