/** `llumnix decide`: its arguments, what its help adds, and how it starts. */
import { UsageError } from "../../core/errors.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import type { Command } from "../command.ts";
import { readCommandLine } from "../command_line.ts";
import { decideGroups } from "./options.ts";

export const decide: Command = {
  groups: decideGroups,
  run: async (argv) => {
    const given = readCommandLine(argv, new ArgumentIndex(decideGroups));
    if (!given.has("kind")) {
      throw new UsageError("--kind is missing: expected load, dispatch, pair, request or scale");
    }
    return await (await import("../commands/decide.ts")).runDecide(given);
  },
  notes: async (width) => (await import("./help.ts")).recordsHelp(width),
};
