/** `llumnix demo`: its arguments, and how it starts. */
import type { Command } from "../command.ts";
import { demoGroups, demoOptions } from "./arguments.ts";

export const demo: Command = {
  groups: demoGroups,
  run: async (argv) => await (await import("../commands/demo.ts")).runDemo(demoOptions(argv)),
};
