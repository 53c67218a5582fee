/** Arguments of `llumnix simulate`. */
import type {
  EngineOptions,
  ManagerOptions,
  MigrationOptions,
  ScalingOptions,
  TransferOptions,
} from "../../core/options.ts";
import type { ExperimentEngineOptions } from "../../sim/experiment/experiment_config.ts";
import { presets } from "../../sim/experiment/presets.ts";
import { lengthNames } from "../../workload/paper_lengths.ts";
import {
  type Argument,
  type ArgumentTable,
  choice,
  flag,
  integer,
  list,
  number,
  type OptionsOf,
  text,
} from "../arguments/argument.ts";
import { llumnixArguments } from "../arguments/llumnix.ts";
import { engineExtras, serverExtras } from "../arguments/program.ts";
import type { Group } from "../arguments/tables.ts";
import { vllmArguments } from "../arguments/vllm.ts";

/** An argument of `serve`, which works here whether or not it does there yet. */
function simulated<A extends Argument>(argument: A): A {
  return { ...argument, status: { kind: "works" }, section: null };
}

export const experimentArguments = {
  "preset": text({
    default: null,
    help: `An experiment: ${presets.map(({ name }) => name).join(", ")}. Other arguments of the ` +
      "command line win over the preset's, in its first configuration also over policies that the " +
      "configuration sets.",
  }),
  "compare": list({
    default: null,
    metavar: "NAME:OPTIONS",
    help: 'More configurations of the cluster, each quoted: "rr: --dispatch-policy rr". Each is ' +
      "the configuration of the command line with these options added; --enable-migration=false " +
      "turns a flag off.",
  }),
  "name": text({
    default: null,
    defaultText: "llumnix",
    help: "Name of the first configuration. The others are compared with it.",
  }),
  "requests": integer({
    default: null,
    min: 1,
    defaultText: "10000, or the whole trace",
    help: "Number of requests.",
  }),
  "seeds": integer({ default: 3, min: 1, max: 1000, help: "Number of seeds: 1, 2, ..." }),
  "first-seed": integer({ default: 1, min: 0, max: 2 ** 31, help: "The first of the seeds." }),
  "json": text({
    default: null,
    metavar: "FILE",
    help: "Write all figures as JSON to this file. -: to stdout, instead of the tables.",
  }),
  "html": text({
    default: null,
    metavar: "FILE",
    help: "Write a report with plots to this file. -: to stdout, instead of the tables.",
  }),
  "csv": text({
    default: null,
    metavar: "FILE",
    help: "Write the requests of all runs as CSV to this file, a line each.",
  }),
} satisfies ArgumentTable;

export const workloadArguments = {
  "arrivals": choice({
    choices: ["poisson", "gamma", "uniform", "burst"],
    default: null,
    defaultText: "poisson, or the times of the trace",
    help: "When requests arrive: poisson, at random; gamma, in bursts (--cv); uniform, at equal " +
      "intervals; burst, all at once.",
  }),
  "rate": list({
    default: null,
    metavar: "RATE",
    help: "Requests per second. Several values are a sweep.",
  }),
  "cv": list({
    default: null,
    metavar: "CV",
    help: "With --arrivals gamma, coefficient of variation of the gaps (1 is Poisson, more is " +
      "burstier). Several values are a sweep. Default: 2.",
  }),
  "lengths": text({
    default: null,
    defaultText: "s-s",
    help: `Lengths of inputs and outputs: ${lengthNames.join(", ")} or fixed:PROMPT:OUTPUT.`,
  }),
  "trace": text({
    default: null,
    metavar: "FILE",
    help: "Recorded requests: .jsonl (time in seconds, prompt_tokens, output_tokens, priority), " +
      ".csv (BurstGPT) or .json (ShareGPT; needs --rate).",
  }),
  "high-priority": number({
    default: null,
    min: 0,
    max: 1,
    defaultText: "0",
    help: "Fraction of requests of high priority, if the trace has no priorities.",
  }),
} satisfies ArgumentTable;

/** The arguments of a configuration of the cluster, which `--compare` takes. */
export const clusterArguments = {
  "instances": integer({
    default: 16,
    min: 1,
    max: 4096,
    aliases: ["--initial-instances"],
    help: "Instances at start.",
  }),
  "dispatch-policy": simulated(llumnixArguments["dispatch-policy"]),
  "load-metric": simulated(llumnixArguments["load-metric"]),
  "num-dispatch-instances": simulated(llumnixArguments["num-dispatch-instances"]),
  "priority-headroom-blocks": simulated(serverExtras["priority-headroom-blocks"]),
  "ignore-priorities": flag({
    help: "Serve requests of both priorities alike; the results still show them apart.",
  }),
  "polling-interval": simulated(llumnixArguments["polling-interval"]),
  "enable-migration": simulated(llumnixArguments["enable-migration"]),
  "pair-migration-frequency": simulated(llumnixArguments["pair-migration-frequency"]),
  "pair-migration-policy": simulated(llumnixArguments["pair-migration-policy"]),
  "migrate-out-threshold": simulated(llumnixArguments["migrate-out-threshold"]),
  "request-migration-policy": simulated(llumnixArguments["request-migration-policy"]),
  "enable-defrag": simulated(llumnixArguments["enable-defrag"]),
  "migration-buffer-blocks": simulated(llumnixArguments["migration-buffer-blocks"]),
  "migration-num-layers": simulated(llumnixArguments["migration-num-layers"]),
  "last-stage-max-blocks": simulated(llumnixArguments["last-stage-max-blocks"]),
  "max-stages": simulated(llumnixArguments["max-stages"]),
  "migration-crossover": simulated(engineExtras["migration-crossover"]),
  "enable-pd-disagg": simulated(llumnixArguments["enable-pd-disagg"]),
  "enable-scaling": simulated(llumnixArguments["enable-scaling"]),
  "min-instances": simulated(llumnixArguments["min-instances"]),
  "max-instances": integer({
    default: null,
    min: 1,
    max: 4096,
    defaultText: "--instances",
    help: "Maximum number of instances.",
  }),
  "scaling-interval": simulated(llumnixArguments["scaling-interval"]),
  "scaling-policy": simulated(llumnixArguments["scaling-policy"]),
  "scale-up-threshold": simulated(llumnixArguments["scale-up-threshold"]),
  "scale-down-threshold": simulated(llumnixArguments["scale-down-threshold"]),
  "instance-start-time": number({
    default: 10,
    min: 0,
    max: 86400,
    metavar: "SECONDS",
    help: "With --enable-scaling, time from the start of an instance until it serves.",
  }),
} satisfies ArgumentTable;

export const deviceArguments = {
  "gpu-type": simulated(llumnixArguments["gpu-type"]),
  "profiling-result-file-path": simulated(llumnixArguments["profiling-result-file-path"]),
  "model": text({
    default: "llama-7b",
    help: "Model: llama-7b, llama-3.1-8b, qwen2.5-7b, or one of the profile.",
  }),
  "dtype": simulated(vllmArguments["dtype"]),
  "max-model-len": simulated(vllmArguments["max-model-len"]),
  "block-size": simulated(vllmArguments["block-size"]),
  "swap-space": simulated(vllmArguments["swap-space"]),
  "gpu-memory-utilization": simulated(vllmArguments["gpu-memory-utilization"]),
  "num-gpu-blocks-override": simulated(vllmArguments["num-gpu-blocks-override"]),
  "max-num-batched-tokens": simulated(vllmArguments["max-num-batched-tokens"]),
  "max-num-seqs": simulated(vllmArguments["max-num-seqs"]),
  "scheduler-delay-factor": simulated(vllmArguments["scheduler-delay-factor"]),
  "preemption-mode": simulated(engineExtras["preemption-mode"]),
  "prefill-hold-timeout": simulated(engineExtras["prefill-hold-timeout"]),
} satisfies ArgumentTable;

/** The groups that a configuration of `--compare` takes. */
export const clusterGroups: readonly Group[] = [
  { title: "Cluster and policies", section: "MANAGER", table: clusterArguments },
  { title: "Instances", section: "ENGINE", table: deviceArguments },
];

export const simulateGroups: readonly Group[] = [
  { title: "Experiment", section: "MANAGER", table: experimentArguments },
  { title: "Requests", section: "MANAGER", table: workloadArguments },
  ...clusterGroups,
];

export type ClusterOptions = OptionsOf<typeof clusterArguments & typeof deviceArguments>;

type Satisfies<Contract, Options extends Contract> = Options;

/** Fails to compile when the tables no longer give what a simulation reads. */
export type CheckedSimulateOptions = [
  Satisfies<
    Omit<ManagerOptions, "initialInstances" | "disableLogRequestsManager">,
    ClusterOptions
  >,
  Satisfies<MigrationOptions & TransferOptions, ClusterOptions>,
  Satisfies<Omit<ScalingOptions, "maxInstances">, ClusterOptions>,
  Satisfies<Omit<ExperimentEngineOptions, "seed">, ClusterOptions>,
  Satisfies<Pick<EngineOptions, "maxNumSeqs">, ClusterOptions>,
];
