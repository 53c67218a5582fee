/** `llumnix profile`: its arguments, and how it starts. */
import type { Command } from "../command.ts";
import { wrap } from "../help.ts";
import { fitGroup, runGroup } from "./arguments.ts";

const notes = "run measures the executor of this host over a grid of sizes. fit reads files of " +
  "--log-instance-info (LOG_instance.csv), of this program or of Llumnix. Both fit the latency model of " +
  "a simulated instance by robust least squares (Huber's loss of relative residuals): prefill is linear " +
  "in tokens, decode linear in sequences and tokens. Use the profile with --device sim or llumnix " +
  "simulate: --profiling-result-file-path FILE --model NAME.";

export const profile: Command = {
  groups: [runGroup, fitGroup],
  run: async (argv) => await (await import("../commands/profile.ts")).runProfile(argv),
  notes: (width) => Promise.resolve(wrap(notes, width, "")),
};
