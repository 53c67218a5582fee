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
  "`deno run -A mod.ts help --markdown > src/cli/README.md` generates this page from the argument " +
  "tables in `arguments/`. The parser, the configuration file and `--help` use the same tables. " +
  "[ARGUMENTS.md](ARGUMENTS.md) says how to add an argument, and " +
  "[COMING_FROM_LLUMNIX.md](COMING_FROM_LLUMNIX.md) what old command lines become.",
  "Write an option as `--name value` or `--name=value`; if it is repeated, the last value wins. A " +
  "flag has no value; `--flag=false` turns off a flag that a configuration file turns on. Names may " +
  "have underscores instead of dashes.",
  "A configuration file (`--config-file`) is YAML with the sections `SERVER`, `MANAGER` and " +
  "`ENGINE`, whose keys are named below, and optionally `_BASE_`, a file to inherit from (relative " +
  "to the file, `~` expanded). The command line wins over the file, the file over its base, and " +
  "the base over the default. `--print-config` shows the values in force and where they come from. " +
  "Files written for Llumnix load; a warning names the keys that have no effect.",
  "An argument that is refused or not available yet may be given with its default value. Any other " +
  "value is an error: the program prints one line on stderr and exits with code 2.",
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
