/** Help for the terminal, in the form of Python's argparse, which the reference pages show. */
import { type ArgumentIndex, entriesOf, type Entry } from "./arguments/index.ts";
import { statusText } from "./arguments/status.ts";
import { shownDefault } from "./arguments/values.ts";

const helpColumn = 24;

/**
 * The whole help of a command: what it does, how it is called, and its arguments.
 * @param width of the terminal in columns
 * @param usages what follows the program's name
 */
export function commandHelp(
  program: string,
  summary: string,
  index: ArgumentIndex,
  width: number,
  usages: readonly string[] = ["[options]"],
): string {
  const usage = usages.map((words, i) => `${i === 0 ? "usage:" : "      "} ${program} ${words}`);
  const blocks = [wrap(summary, width, ""), usage.join("\n")];
  for (const group of index.groups) {
    const details = entriesOf(group).map((entry) => argumentHelp(entry, width));
    blocks.push([`${group.title}:`, ...details].join("\n"));
  }
  return blocks.join("\n\n");
}

function argumentHelp(entry: Entry, width: number): string {
  const { name, argument } = entry;
  const heading = `  ${[`--${name}`, ...argument.aliases].join(", ")}${valueForm(entry)}`;
  const shownValue = shownDefault(argument);
  const sentences = [
    argument.help.replaceAll("`", ""),
    statusText(argument),
    shownValue === null ? "" : `(default: ${shownValue})`,
  ];
  const body = wrap(sentences.filter(Boolean).join(" "), width, " ".repeat(helpColumn));
  const fitsBeside = heading.length + 2 <= helpColumn;
  return fitsBeside ? heading + body.slice(heading.length) : `${heading}\n${body}`;
}

/** What follows an option in help: `PORT`, `{8,16,32}`, or nothing. */
export function valueForm({ name, argument }: Entry): string {
  if (argument.kind === "flag") return "";
  if (argument.choices !== null) return ` {${argument.choices.join(",")}}`;
  const metavar = argument.metavar ?? name.replaceAll("-", "_").toUpperCase();
  return argument.kind === "list" ? ` ${metavar} [${metavar} ...]` : ` ${metavar}`;
}

/** Fills lines of at most `width` columns, each after `indent`; longer words stand alone. */
export function wrap(text: string, width: number, indent: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent.length + line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].map((content) => indent + content).join("\n");
}

/** What help says after the arguments: paragraphs, then command lines as they are. */
export function notesText(
  paragraphs: readonly string[],
  examples: readonly string[],
  width: number,
): string {
  const wrapped = paragraphs.map((text) => wrap(text, width, ""));
  const lines = ["Examples:", ...examples.map((line) => `  ${line}`)];
  return [...wrapped, ...(examples.length > 0 ? [lines.join("\n")] : [])].join("\n\n");
}

/** Columns of the terminal: COLUMNS, the terminal itself, or 80; at least 50, at most 120. */
export function terminalWidth(): number {
  const columns = Number(Deno.env.get("COLUMNS")) || (
    Deno.stdout.isTerminal() ? Deno.consoleSize().columns : 80
  );
  return Math.min(120, Math.max(50, columns));
}
