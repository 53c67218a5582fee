/** `llumnix upgrade`: its arguments, and how it starts. */
import { camelCase } from "../arguments/argument.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import type { Command } from "../command.ts";
import { readCommandLine } from "../command_line.ts";
import { upgradeGroups, type UpgradeOptions } from "./arguments.ts";

export const upgrade: Command = {
  groups: upgradeGroups,
  run: async (argv) => {
    const index = new ArgumentIndex(upgradeGroups);
    const given = readCommandLine(argv, index);
    const options = Object.fromEntries(index.entries.map(({ name, argument }) => [
      camelCase(name),
      given.get(name) ?? argument.default,
    ])) as UpgradeOptions;
    return await (await import("../commands/upgrade.ts")).runUpgrade(options);
  },
  notes: async (width) => (await import("../help.ts")).notesText(notes, [], width),
};

const notes = [
  "Each process starts a successor with its own arguments. The successor takes over the listening " +
  "socket and the instances, and the old process ends once its requests have finished. The " +
  "manager then replaces its instances one after the other, while their requests move to others " +
  "(with --enable-migration) or finish.",
  "Over several hosts (--cluster, or agents) run the command on one host after the other. Each host's agent " +
  "has its instances replaced by the manager that leads, one instance of the whole service at a time. A " +
  "manager that leads gives the leadership to another one at once. Hosts of both versions serve together " +
  "meanwhile, if they speak the same version of the protocol.",
  "If the new executable does not start, refuses the arguments or speaks another version of the " +
  "protocol, the old process serves on, and this command says why.",
  "SIGUSR2 to a process does the same with the file that it was started from.",
  "A service of systemd (llumnix systemd) runs as a user of its own, whom this command does not reach: " +
  "put the new executable in the place of the old one, and use systemctl reload NAME. --list names such " +
  "services.",
];
