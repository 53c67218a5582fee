/** `llumnix systemd [OPTIONS] [-- COMMAND ARGS]`: its arguments, and how it starts. */
import { camelCase } from "../arguments/argument.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import type { Command } from "../command.ts";
import { readCommandLine } from "../command_line.ts";
import { systemdGroups, type SystemdOptions } from "./arguments.ts";

export const systemd: Command = {
  groups: systemdGroups,
  run: async (argv) => {
    const end = argv.includes("--") ? argv.indexOf("--") : argv.length;
    const index = new ArgumentIndex(systemdGroups);
    const given = readCommandLine(argv.slice(0, end), index);
    const options = Object.fromEntries(index.entries.map(({ name, argument }) => [
      camelCase(name),
      given.get(name) ?? argument.default,
    ])) as SystemdOptions;
    const { runSystemd } = await import("../commands/systemd.ts");
    return await runSystemd(options, argv.slice(end + 1));
  },
  notes: async (width) => {
    const { wrap } = await import("../help.ts");
    return notes.map((paragraph) => wrap(paragraph, width, "")).join("\n\n");
  },
};

const notes = [
  "The command that the unit runs follows two dashes: llumnix systemd --write -- serve --model " +
  "/srv/model --initial-instances 4. Commands are serve (the default), manager, api-server and instance; " +
  "their arguments are checked. Give paths as absolute ones: a service runs in a directory of its own.",
  "Keys and tokens belong in the environment file, which only its owner can read: " +
  "LLUMNIX_ADMIN_TOKEN, VLLM_API_KEY, LLUMNIX_CLUSTER_KEY.",
];
