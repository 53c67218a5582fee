/** `llumnix demo`: its arguments, and how it starts. */
import type { Command } from "../command.ts";
import { demoGroups, demoOptions } from "./arguments.ts";

const notes = [
  "Starts two services of four instances each on the built-in model, one without migration and one " +
  "with it. Both get the same bursts of requests at the same time, and in each round one instance of each " +
  "is killed. They share this machine, so whatever else runs on it slows both alike. A table compares " +
  "them. Open the addresses that it prints first, to watch. It takes one to two minutes, needs no files, " +
  "and leaves none.",
  "The exit code is 0 if no request was lost, 1 if one was, and 130 after Ctrl-C.",
];

export const demo: Command = {
  groups: demoGroups,
  run: async (argv) => await (await import("../commands/demo.ts")).runDemo(demoOptions(argv)),
  notes: async (width) => (await import("../help.ts")).notesText(notes, [], width),
};
