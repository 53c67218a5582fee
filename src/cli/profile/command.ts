/** `llumnix profile`: its arguments, and how it starts. */
import type { Command } from "../command.ts";
import { notesText } from "../help.ts";
import { fitGroup, runGroup } from "./arguments.ts";

const notes = [
  "A profile says how long the steps of a model take on a device, so that llumnix simulate and serve " +
  "--device sim can stand for a real cluster. run measures the executor of this host over a grid of " +
  "sizes. fit reads what a service logged with --log-instance-info (LOG_instance.csv, of this program " +
  "or of Llumnix).",
  "Both fit the latency model of a simulated instance by robust least squares (Huber's loss of relative " +
  "residuals): prefill is linear in tokens, with a square term for attention, decode linear in sequences " +
  "and tokens. The table that they print says how well that describes the steps: R2 is 1 for a perfect fit.",
];

const examples = [
  "# this host",
  "llumnix profile run --model ~/models/Qwen3-0.6B --out host.json",
  "# a service that ran with --log-instance-info --log-filename mine",
  "llumnix profile fit mine_instance.csv --model ~/models/Qwen3-0.6B --out mine.json",
  "# sixteen of them",
  "llumnix simulate --profiling-result-file-path mine.json --model Qwen3-0.6B --rate 8",
];

export const profile: Command = {
  groups: [runGroup, fitGroup],
  usages: ["run [options]", "fit CSV [CSV ...] --model MODEL [options]"],
  run: async (argv) => await (await import("../commands/profile.ts")).runProfile(argv),
  notes: (width) => Promise.resolve(notesText(notes, examples, width)),
};
