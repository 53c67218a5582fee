/** Arguments of `llumnix profile run` and `llumnix profile fit`. */
import {
  type ArgumentTable,
  boolean,
  integer,
  number,
  type OptionsOf,
  text,
} from "../arguments/argument.ts";
import { engineExtras } from "../arguments/program.ts";
import type { Group } from "../arguments/tables.ts";
import { vllmArguments } from "../arguments/vllm.ts";

const common = {
  "out": text({
    default: "profile.json",
    metavar: "FILE",
    aliases: ["--database"],
    help: "Profile to write. Entries of other models and other degrees of parallelism stay.",
  }),
  "html": text({ default: null, metavar: "FILE", help: "Write plots of the steps and the fit." }),
  "name": text({
    default: null,
    defaultText: "the base name of --model",
    help: "Name of the model in the profile, which --model of a simulation names.",
  }),
  "block-size": vllmArguments["block-size"],
  "gpu-memory-utilization": vllmArguments["gpu-memory-utilization"],
  "migration-gbps": number({
    default: 1,
    above: 0,
    max: 1e6,
    help:
      "10^9 bytes per second between two instances (llumnix doctor measures this host's paths).",
  }),
  "swap-gbps": number({
    default: 32,
    above: 0,
    max: 1e6,
    help: "10^9 bytes per second between the device's and the host's memory.",
  }),
} satisfies ArgumentTable;

const runArguments = {
  "model": vllmArguments["model"],
  "device": vllmArguments["device"],
  "dtype": vllmArguments["dtype"],
  "load-format": vllmArguments["load-format"],
  "max-model-len": vllmArguments["max-model-len"],
  "num-gpu-blocks-override": vllmArguments["num-gpu-blocks-override"],
  "cpu-threads": engineExtras["cpu-threads"],
  "cpu-kernels": engineExtras["cpu-kernels"],
  "host-share": integer({
    default: 1,
    min: 1,
    max: 1024,
    help: "Instances that will share this host: the executor takes this fraction of it.",
  }),
  "max-tokens": integer({
    default: 2048,
    min: 16,
    max: 1 << 20,
    help: "Longest prompt and longest sequence that are measured.",
  }),
  "max-batch": integer({
    default: 32,
    min: 1,
    max: 4096,
    help: "Most sequences of a decode step that are measured.",
  }),
  "repeats": integer({ default: 5, min: 1, max: 1000, help: "How often each size is measured." }),
  "csv": text({
    default: null,
    metavar: "FILE",
    help: "Write the steps, in columns that `profile fit` reads.",
  }),
  ...common,
} satisfies ArgumentTable;

const fitArguments = {
  "model": text({
    default: null,
    metavar: "MODEL",
    help: "Directory of the model, or the name of a simulated one: its sizes go into the profile.",
  }),
  "dtype": vllmArguments["dtype"],
  "max-model-len": vllmArguments["max-model-len"],
  "tensor-parallel-size": integer({
    default: 1,
    min: 1,
    max: 1024,
    aliases: ["-tp", "--tp"],
    help: "Degree of tensor parallelism of the logged instances.",
  }),
  "pipeline-parallel-size": integer({
    default: 1,
    min: 1,
    max: 1024,
    aliases: ["-pp", "--pp"],
    help: "Degree of pipeline parallelism of the logged instances.",
  }),
  "num-gpu-blocks": integer({
    default: null,
    min: 1,
    defaultText: "from the log",
    help: "Blocks of an instance.",
  }),
  "max-num-batched-tokens": integer({
    default: null,
    min: 1,
    defaultText: "any",
    help: "The value of --max-num-batched-tokens that the number of blocks is for.",
  }),
  "pauses": boolean({
    default: true,
    help: "Add the pause between two steps, which the log tells, to each step. True for `llumnix " +
      "simulate`, which has no other cost between steps; false for `serve --device sim`.",
  }),
  "max-piece-tokens": integer({
    default: null,
    min: 1,
    max: 1 << 20,
    defaultText: "prompts come whole",
    help:
      "Most tokens of a prompt that one step of the logged instances computed: 512 with --device cpu. " +
      "A simulation then cuts prompts as the service does. profile run knows it.",
  }),
  "requests": text({
    default: null,
    metavar: "FILE",
    help: "CSV of requests that went to the idle service one at a time (llumnix bench " +
      "--max-concurrency 1 --request-rate 3 --burstiness inf --csv FILE). Their time to first token beyond " +
      "the prefill is HTTP, text and dispatch; llumnix simulate adds it to each request. Without this file " +
      "it adds nothing.",
  }),
  ...common,
} satisfies ArgumentTable;

export type RunOptions = OptionsOf<typeof runArguments>;
export type FitOptions = OptionsOf<typeof fitArguments>;

export const runGroup: Group = {
  title: "profile run",
  section: "ENGINE",
  table: runArguments,
};
export const fitGroup: Group = {
  title: "profile fit",
  section: "ENGINE",
  table: fitArguments,
};
