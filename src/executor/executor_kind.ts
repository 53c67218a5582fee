import type { Clock } from "../core/clock.ts";
import type { EngineOptions } from "../core/options.ts";
import type { SamplingParams } from "../core/protocol/generate.ts";
import type { ServedSettings } from "../core/protocol/membership.ts";
import type { KvMemory } from "../kv/pool/pool.ts";
import type { DeviceName, Executor, ExecutorSpec, OnProgress } from "./executor.ts";

/** A model that instances will be able to load, or to simulate. */
export interface FoundModel {
  readonly name: string;
  /** What instances will register; null where only a loaded executor can tell. */
  readonly served: ServedSettings | null;
  /** The directory of its files; null when it has none. */
  readonly directory: string | null;
  readonly vocabSize: number;
  /** Longest sequence in tokens, prompt and output. */
  readonly maxModelLen: number;
  readonly eosTokenIds: readonly number[];
  /** Defaults of requests, from generation_config.json. */
  readonly defaultSampling: Readonly<Partial<SamplingParams>>;
  /** Things the user should know. */
  readonly warnings: readonly string[];
}

/**
 * What the rest of the program knows of a device before it loads anything. Each device has a directory
 * with such a record in `kind.ts`, and a line in `devices.ts`. The record holds metadata only; `find`
 * and `load` import the implementation when they are called.
 */
export interface ExecutorKind {
  readonly device: DeviceName;
  /** Its steps take the host's cores: its thread yields to others, and so do transfers of KV blocks. */
  readonly usesHostCores: boolean;
  /** It runs on a latency profile: `--profiling-result-file-path`, `--gpu-type`, `--speedup` are for it. */
  readonly usesProfile: boolean;
  /**
   * Whether its instances may share the manager's process: steps need next to no time of the thread.
   * `by default`: they do so under `--instance-isolation auto`.
   */
  readonly sharesProcess: "by default" | "on request" | "never";
  /** It can have weights and a cache in 8 bits: `--quantization fp8`, `--kv-cache-dtype fp8`. */
  readonly hasFp8: boolean;
  /** A model can be divided among several of it: `--tensor-parallel-size`. */
  readonly hasRanks: boolean;
  /** Where its KV cache is. */
  readonly memory: KvMemory;
  /**
   * Whether this host has the device. `--device auto` takes the first device of the register that is
   * present; it never takes a device without this function.
   */
  isPresent?(): boolean;
  /** Devices that this process may use, of which an instance takes one. Absent: instances share the host. */
  countDevices?(): number;
  /**
   * Finds the model of the options; loads nothing.
   * @throws {ModelError} the model is missing, damaged or not supported
   * @throws {UsageError} the options do not fit the model
   */
  find(options: EngineOptions): Promise<FoundModel>;
  /**
   * Loads an executor in this thread.
   * @param clock given where other roles share the thread, on devices that may share a process: steps
   *   wait on this clock and never block
   * @throws {ModelError} the model is missing, damaged or not supported
   * @throws {UsageError} the options do not fit the model or the device
   */
  load(spec: ExecutorSpec, onProgress: OnProgress, clock?: Clock): Promise<Executor>;
}
