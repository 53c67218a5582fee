/** `llumnix bench`: its arguments, and how it starts. */
import type { Command } from "../command.ts";
import { benchGroups } from "./arguments.ts";

export const bench: Command = {
  groups: benchGroups,
  run: async (argv) => await (await import("../commands/bench.ts")).runBench(argv),
  notes: async (width) => (await import("./help.ts")).benchNotes(width),
};
