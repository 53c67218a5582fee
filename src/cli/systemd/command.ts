/** `llumnix systemd [OPTIONS] [-- COMMAND ARGS]`: its arguments, and how it starts. */
import { camelCase } from "../arguments/argument.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import type { Command } from "../command.ts";
import { readCommandLine } from "../command_line.ts";
import { systemdGroups, type SystemdOptions } from "./arguments.ts";

export const systemd: Command = {
  groups: systemdGroups,
  usages: ["[options] [-- COMMAND [arguments]]"],
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
  notes: async (width) => (await import("../help.ts")).notesText(notes, examples, width),
};

const notes = [
  "The command that the unit runs follows two dashes: serve (the default), manager, api-server, " +
  "agent or instance, with its arguments, which are checked. Give paths as absolute ones: a service runs in a " +
  "directory of its own.",
  "Without --write the unit is printed and nothing changes. --write prints how to start, upgrade and " +
  "remove the service. It starts nothing by itself.",
  "Keys and tokens belong in the environment file, which only its owner can read: LLUMNIX_ADMIN_TOKEN, " +
  "VLLM_API_KEY, LLUMNIX_CLUSTER_KEY, LLUMNIX_CLUSTER_PASSWORD.",
];

const examples = [
  "# look at it first",
  "llumnix systemd -- serve --model /srv/model",
  "# a service of four instances",
  "llumnix systemd --write -- serve --model /srv/model --initial-instances 4",
  "# one more instance, on another host than its manager",
  "llumnix systemd --write --name llumnix-instance -- instance --manager-address tcp:10.0.0.1:9000",
];
