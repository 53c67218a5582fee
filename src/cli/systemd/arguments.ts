/** Arguments of `llumnix systemd`. */
import { type ArgumentTable, flag, number, type OptionsOf, text } from "../arguments/argument.ts";
import type { Group } from "../arguments/tables.ts";

const systemdArguments = {
  "user": flag({
    section: null,
    help: "A unit of the user's own systemd (systemctl --user) instead of the host's.",
  }),
  "write": flag({
    section: null,
    help: "Write the unit, and a file for its environment variables, to where systemd looks for " +
      "them, instead of printing the unit. A unit that this command did not write is left alone.",
  }),
  "name": text({
    section: null,
    default: "llumnix",
    help: "Name of the unit. Choose another for each further service of the host.",
  }),
  "watchdog": number({
    section: null,
    default: 60,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    help: "systemd ends and restarts a service that does not report for this long. 0: never.",
  }),
} satisfies ArgumentTable;

export type SystemdOptions = OptionsOf<typeof systemdArguments>;

export const systemdGroups: readonly Group[] = [
  { title: "Arguments", section: "SERVER", table: systemdArguments },
];
