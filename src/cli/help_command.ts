/** `llumnix help`: the program's help, a command's, and the page of all arguments. */
import { UsageError } from "../core/errors.ts";
import type { Command } from "./command.ts";
import { findCommand, programHelp } from "./commands.ts";

export const help: Command = {
  run: async (argv) => {
    const [topic, ...rest] = argv;
    if (rest.length > 0) throw new UsageError(`unexpected argument: ${rest[0]}`);
    if (topic === undefined || topic === "-h" || topic === "--help") console.log(programHelp());
    else if (topic === "--markdown") await printArgumentsPage();
    else await printCommandHelp(topic);
    return 0;
  },
};

async function printArgumentsPage(): Promise<void> {
  const { argumentsPage } = await import("./markdown.ts");
  console.log(argumentsPage().trimEnd());
}

async function printCommandHelp(topic: string): Promise<void> {
  const { load, summary } = findCommand(topic);
  const program = `llumnix ${topic}`;
  const { groups, usages, notes } = await load?.() ?? {};
  if (groups === undefined) {
    const suffix = load === null ? " (not available yet)" : "";
    return console.log(`usage: ${program}\n\n${summary}${suffix}`);
  }
  const { commandHelp, terminalWidth } = await import("./help.ts");
  const { ArgumentIndex } = await import("./arguments/index.ts");
  const width = terminalWidth();
  console.log(commandHelp(program, summary, new ArgumentIndex(groups), width, usages));
  if (notes !== undefined) console.log(`\n${await notes(width)}`);
}
