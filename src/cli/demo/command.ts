/** `llumnix demo`: its arguments, and how it starts. */
import type { Command } from "../command.ts";
import { demoGroups, demoOptions } from "./arguments.ts";

const notes = [
  "Starts a service of four instances on the built-in model, sends it bursts of requests, kills an " +
  "instance, and stops the service; first without migration, then with it. A table compares both. " +
  "Open the address that it prints first, to watch. It takes about 80 seconds, needs no files, and " +
  "leaves none.",
  "The exit code is 0 if no request was lost, 1 if one was, and 130 after Ctrl-C.",
];

export const demo: Command = {
  groups: demoGroups,
  run: async (argv) => await (await import("../commands/demo.ts")).runDemo(demoOptions(argv)),
  notes: async (width) => (await import("../help.ts")).notesText(notes, [], width),
};
