/** Arguments of `llumnix upgrade`. */
import { type ArgumentTable, flag, integer, type OptionsOf, text } from "../arguments/argument.ts";
import type { Group } from "../arguments/tables.ts";

const upgradeArguments = {
  "binary": text({
    section: null,
    default: null,
    metavar: "FILE",
    defaultText: "the file that each process was started from, as it is on disk now",
    help: "The new executable. It is used where it is: leave it there while the service runs.",
  }),
  "pid": integer({
    section: null,
    default: null,
    min: 1,
    defaultText: "all processes of this user",
    help: "Upgrade only this process: an API server, a manager, an agent, or `llumnix serve`.",
  }),
  "list": flag({
    section: null,
    help: "Print the running processes, their instances and their versions, and change nothing.",
  }),
} satisfies ArgumentTable;

export type UpgradeOptions = OptionsOf<typeof upgradeArguments>;

export const upgradeGroups: readonly Group[] = [
  { title: "Arguments", section: "SERVER", table: upgradeArguments },
];
