/**
 * The sections of the verification, in their order. Those that measure nothing run beside each other. If all came to
 * their limits, they would take less than nine minutes on a host with 16 cores.
 */

import { migrationBackends } from "../../src/kv/transfer/backends.ts";

export interface Section {
  readonly name: string;
  /** What it shows, for people. */
  readonly shows: string;
  readonly limitS: number;
  /** Words after `deno`. */
  command(on: Target): readonly string[];
  /** How its output is read. */
  readonly output: "findings" | "tests" | "doctor";
  /** It measures no time, and may run beside others that do not. Default false. */
  readonly besideOthers?: boolean;
}

/** Sections that run at the same time, after one another where there are more than `places`. */
export interface Turn {
  readonly sections: readonly Section[];
  readonly places: number;
}

/** Sections beside others, for these cores: a section's processes take about two. */
export function turnsOf(chosen: readonly Section[], cores: number): Turn[] {
  const turns: Section[][] = [];
  for (const section of chosen) {
    const last = turns.at(-1);
    if (section.besideOthers && last?.[0].besideOthers) last.push(section);
    else turns.push([section]);
  }
  return turns.map((sections) => ({ sections, places: Math.max(1, Math.floor(cores / 2)) }));
}

/** What is verified. */
export interface Target {
  readonly softwareDevice: boolean;
}

const program = (name: string, ...words: string[]) => [
  ...["run", "-A", "--no-check", `scripts/gpu_verify/${name}.ts`],
  ...words,
];
const tests = (...words: string[]) => ["test", "-A", "--no-check", "--quiet", ...words];

const migration = (name: string): Section => ({
  name,
  shows:
    `--migration-backend ${name} between the device pools of two processes, one killed at last`,
  limitS: 22,
  command: () => program("backends", name),
  output: "findings",
});

const sanitizer = (tool: string): Section => ({
  name: tool,
  shows: `the executor on small shapes, in 16 and in 8 bits, under compute-sanitizer's ${tool}`,
  limitS: 60,
  command: () => program("executor", tool),
  output: "findings",
  besideOthers: true,
});

export const sections: readonly Section[] = [
  {
    name: "environment",
    shows: "driver, devices, libraries, and the ceilings: memcpy, pinned copies, device copy",
    limitS: 20,
    command: () => ["run", "-A", "--no-check", "mod.ts", "doctor", "--json"],
    output: "doctor",
  },
  {
    name: "executor",
    shows:
      "kernels of a decoder against float64; the suite of executors, logits and greedy tokens " +
      "of every model family against what transformers computed for the fixtures",
    limitS: 60,
    command: () =>
      tests(
        ...["--filter", "on this host's device"],
        ...["test/ffi/cuda/decoder_kernels_test.ts", "test/executor/cuda/host_device_test.ts"],
      ),
    output: "tests",
  },
  {
    name: "paths",
    shows:
      "the self-test of every type with fast and with plain paths, and its time; graphs against eager, " +
      "bit for bit",
    limitS: 25,
    command: () => program("executor"),
    output: "findings",
  },
  {
    name: "decoder",
    shows:
      "layers of decoders of three sizes: decode steps as shares of a copy, with and without programmatic " +
      "launches, rings of 6 and 4 stages; prompts as shares of one large product",
    limitS: 40,
    command: () => program("decoder"),
    output: "findings",
  },
  {
    name: "step",
    shows:
      "whole decode steps of an 8B shape as shares of a copy, and what the device waits for the host",
    limitS: 45,
    command: () => program("step"),
    output: "findings",
  },
  {
    name: "ipc",
    shows:
      "blocks between the device pools of two processes by CUDA's IPC handles; pulled against pushed",
    limitS: 20,
    command: () => program("ipc"),
    output: "findings",
  },
  {
    name: "serving",
    shows:
      "`serve` of a 1B shape: start to first token, loads of `llumnix bench` at several rates, beside " +
      "transformers and a hand-written loop of a CUDA graph",
    limitS: 80,
    command: () => program("serving"),
    output: "findings",
  },
  {
    name: "migrations",
    shows:
      "two instances on one device under load, whose requests move all the time, and one is killed: the " +
      "same tokens and log probabilities; downtime",
    limitS: 50,
    command: () => program("migrations"),
    output: "findings",
  },
  {
    name: "kernels",
    shows: "the kernels of kv.cu load and are right; block-major against per-layer copies",
    limitS: 15,
    command: () => program("kernels"),
    output: "findings",
  },
  ...["memcheck", "racecheck", "initcheck"].map(sanitizer),
  {
    name: "transformers",
    shows:
      "logits and greedy tokens of random models of every family against transformers on this host",
    limitS: 60,
    command: () => program("transformers"),
    output: "findings",
    besideOthers: true,
  },
  {
    name: "merge",
    shows: "stress of the counter by which attention's parts are merged, by two processes at once",
    limitS: 30,
    command: () => program("merge"),
    output: "findings",
    besideOthers: true,
  },
  {
    name: "nccl-raw",
    shows: "libnccl itself: one rank that sends to itself; two processes on one device",
    limitS: 50,
    command: () => program("nccl"),
    output: "findings",
    besideOthers: true,
  },
  {
    name: "kill",
    shows: "kill -9 of either process in the middle of a transfer by IPC handles",
    limitS: 40,
    command: () => program("kill"),
    output: "findings",
    besideOthers: true,
  },
  {
    name: "bindings",
    shows: "the conformance suite of CUDA over libcudart and over libcuda",
    limitS: 35,
    command: ({ softwareDevice }) =>
      tests(
        ...["--filter", softwareDevice ? "of the software device" : "of the GPU"],
        "test/ffi/cuda/conformance_test.ts",
      ),
    output: "tests",
    besideOthers: true,
  },
  {
    name: "pool",
    shows: "the suite of KV pools over a pool in device memory",
    limitS: 30,
    command: () => tests("test/kv/pool/cuda/device_pool_test.ts"),
    output: "tests",
    besideOthers: true,
  },
  {
    name: "staging",
    shows: "the suite of migration backends over rayrpc between device pools",
    limitS: 35,
    command: () => tests("test/kv/transfer/rayrpc/device_rayrpc_test.ts"),
    output: "tests",
    besideOthers: true,
  },
  ...migrationBackends.map(({ name }) => migration(name)),
];
