/** The sections of the verification, in their order. The limits add up to less than nine minutes. */

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

export const sections: readonly Section[] = [
  {
    name: "environment",
    shows: "driver, devices, libraries, and the ceilings: memcpy, pinned copies, device copy",
    limitS: 25,
    command: () => ["run", "-A", "--no-check", "mod.ts", "doctor", "--json"],
    output: "doctor",
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
  },
  {
    name: "kernels",
    shows: "the kernels of kv.cu load and are right; block-major against per-layer copies",
    limitS: 30,
    command: () => program("kernels"),
    output: "findings",
  },
  {
    name: "executor",
    shows:
      "kernels of a decoder against float64; the suite of executors, logits and greedy tokens " +
      "of every model family against transformers",
    limitS: 70,
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
      "the self-test of every type with fast and with plain paths; graphs against eager, bit for " +
      "bit; memcheck on small shapes",
    limitS: 18,
    command: () => program("executor"),
    output: "findings",
  },
  {
    name: "decoder",
    shows:
      "layers of decoders of three sizes: decode steps as shares of a copy, prompts in TFLOP/s",
    limitS: 20,
    command: () => program("decoder"),
    output: "findings",
  },
  {
    name: "ipc",
    shows:
      "blocks between the device pools of two processes by CUDA's IPC handles; pulled against pushed",
    limitS: 30,
    command: () => program("ipc"),
    output: "findings",
  },
  {
    name: "nccl-raw",
    shows: "libnccl itself: one rank that sends to itself; two processes on one device",
    limitS: 50,
    command: () => program("nccl"),
    output: "findings",
  },
  {
    name: "pool",
    shows: "the suite of KV pools over a pool in device memory",
    limitS: 30,
    command: () => tests("test/kv/pool/cuda/device_pool_test.ts"),
    output: "tests",
  },
  {
    name: "staging",
    shows: "the suite of migration backends over rayrpc between device pools",
    limitS: 35,
    command: () => tests("test/kv/transfer/rayrpc/device_rayrpc_test.ts"),
    output: "tests",
  },
  ...migrationBackends.map(({ name }): Section => ({
    name,
    shows:
      `--migration-backend ${name} between the device pools of two processes, one killed at last`,
    limitS: 30,
    command: () => program("backends", name),
    output: "findings",
  })),
  {
    name: "kill",
    shows: "kill -9 of either process in the middle of a transfer by IPC handles",
    limitS: 40,
    command: () => program("kill"),
    output: "findings",
  },
];
