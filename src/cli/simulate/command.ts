/** `llumnix simulate`: its arguments, what its help adds, and how it starts. */
import type { Command } from "../command.ts";
import { simulateGroups } from "./arguments.ts";

export const simulate: Command = {
  groups: simulateGroups,
  run: async (argv) => await (await import("../commands/simulate.ts")).runSimulate(argv),
  notes: async (width) => {
    const { examplesHelp, figuresHelp, profileHelp } = await import("./help.ts");
    return [figuresHelp(width), profileHelp(width), examplesHelp(width)].join("\n\n");
  },
};
