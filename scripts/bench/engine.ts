/**
 * Speed of the CPU executor on random weights: decode at batch 1 and 8, prefill of 512 tokens, and
 * the share of the memory's streaming read bandwidth that decoding at batch 1 uses. Rounds of all kernel
 * sets are interleaved. Every decode step at batch 1 alternates with a plain read of as many bytes as
 * the step has weights, by as many threads on the same CPUs. So a drift of the machine's speed affects
 * all of them, and neither finds more of its memory in the caches. The share of the bandwidth is given
 * for the whole step as the caller sees it, and for the step in the executor's own thread, without the
 * messages between the threads.
 */
import { kernelSets } from "../../ffi/cpu_kernels/kernels.ts";
import { allowedCpus, loadCpuKernels } from "../../ffi/cpu_kernels/load.ts";
import { engineDefaults } from "../../src/cli/arguments/tables.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import type { Executor, StepInput } from "../../src/executor/executor.ts";
import { loadThreadedExecutor } from "../../src/executor/thread/threaded_executor.ts";
import { endless, model05B, model135M, type ModelConfigJson } from "./models.ts";
import { median, printTable } from "./table.ts";

interface Shape {
  readonly name: string;
  readonly config: ModelConfigJson;
}

const shapes: readonly Shape[] = [
  { name: "135M", config: model135M },
  { name: "0.5B", config: model05B },
];

const contextTokens = 128;
const rounds = 3;
const stepsPerRound = 20;

function engineOptions(model: string, set: EngineOptions["cpuKernels"]): EngineOptions {
  return {
    ...engineDefaults(),
    model,
    loadFormat: "dummy",
    dtype: "bfloat16",
    swapSpace: 0,
    numGpuBlocksOverride: 512,
    maxNumSeqs: 16,
    device: "cpu",
    cpuKernels: set,
  };
}

/** Builds steps for `batch` sequences that have `contextTokens` tokens before the first decode. */
class Driver {
  #stepId = 0;
  #nextHandle = 0;
  #handles: number[] = [];
  #lengths: number[] = [];

  constructor(readonly executor: Executor) {}

  /** Replaces all sequences by `batch` new ones and prefills them. Returns tokens/s. */
  async prefill(batch: number, tokens: number): Promise<number> {
    const removed = this.#handles;
    this.#handles = Array.from({ length: batch }, () => this.#nextHandle++);
    this.#lengths = this.#handles.map(() => tokens);
    const prompts = this.#handles.map((handle) =>
      Array.from({ length: tokens }, (_, i) => (i * 7919 + handle * 31) % 40000 + 3)
    );
    const startedMs = performance.now();
    await this.executor.step(this.#input("prefill", prompts, {
      removed,
      added: this.#handles.map((handle, i) => ({
        handle,
        params: endless,
        promptTokenIds: prompts[i],
        outputTokenIds: [],
      })),
    }));
    return batch * tokens / (performance.now() - startedMs) * 1000;
  }

  /** One decode step of all sequences. */
  async decode(): Promise<StepTime> {
    this.#lengths = this.#lengths.map((length) => length + 1);
    const tokens = this.#lengths.map((length) => [length * 31 % 40000]);
    const input = this.#input("decode", tokens, { removed: [], added: [] });
    const startedMs = performance.now();
    const { latencyMs } = await this.executor.step(input);
    return { wholeMs: performance.now() - startedMs, latencyMs };
  }

  #input(
    kind: StepInput["kind"],
    tokens: readonly number[][],
    changes: Pick<StepInput, "removed" | "added">,
  ): StepInput {
    const maxBlocks = 40;
    const batch = tokens.length;
    const starts = [0];
    for (const row of tokens) starts.push(starts.at(-1)! + row.length);
    return {
      stepId: this.#stepId++,
      kind,
      ...changes,
      swapOut: new Int32Array(),
      swapIn: new Int32Array(),
      handles: Int32Array.from(this.#handles),
      tokenIds: Int32Array.from(tokens.flat()),
      queryStarts: Int32Array.from(starts),
      contextLens: Int32Array.from(this.#lengths),
      blockTables: Int32Array.from({ length: batch * maxBlocks }, (_, i) => i),
      maxBlocks,
    };
  }
}

interface StepTime {
  readonly wholeMs: number;
  /** Duration of the step in the executor's thread. */
  readonly latencyMs: number;
}

interface Samples {
  readonly decode1: StepTime[];
  /** Bytes per second of the plain reads between those steps. */
  readonly bandwidth: number[];
  readonly decode8: StepTime[];
  readonly prefill: number[];
}

/** Bytes of weights that a decode step reads: all linear layers and the tied head. */
function decodeBytes(config: Record<string, unknown>): number {
  const c = config as Record<string, number>;
  const headDim = c.hidden_size / c.num_attention_heads;
  const layer = c.hidden_size *
    (2 * c.hidden_size + 2 * c.num_key_value_heads * headDim + 3 * c.intermediate_size);
  return 2 * (c.num_hidden_layers * layer + c.vocab_size * c.hidden_size);
}

async function benchShape({ name, config }: Shape, sets: EngineOptions["cpuKernels"][]) {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(config));
    const cpus = allowedCpus();
    const runs: { set: string; driver: Driver; samples: Samples }[] = [];
    for (const set of sets) {
      // On a thread of its own, as in an instance: kernels pin the thread that loads them.
      const options = engineOptions(directory, set);
      const executor = await loadThreadedExecutor({ device: "cpu", options, hostShare: 1 });
      const samples = { decode1: [], bandwidth: [], decode8: [], prefill: [] };
      runs.push({ set: executor.info.description, driver: new Driver(executor), samples });
    }
    // Only now, because threads that start later inherit the CPU that this thread is pinned to.
    const reader = await openReader(decodeBytes(config), cpus);
    for (let round = 0; round < rounds; round++) {
      for (const { driver, samples } of runs) await oneRound(driver, samples, reader);
    }
    reader.close();
    printTable(
      `CPU engine, ${name} shape, bfloat16`,
      runs.map(({ set, samples }) => ({ "kernel set": set, ...figures(samples, config) })),
    );
    for (const { driver } of runs) await driver.executor.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function figures(samples: Samples, config: Record<string, unknown>): Record<string, string> {
  const medianOf = (times: readonly StepTime[], key: keyof StepTime) =>
    median(times.map((time) => time[key]));
  const read = median(samples.bandwidth);
  const ofBandwidth = (ms: number) =>
    `${(decodeBytes(config) / ms * 1000 / read * 100).toFixed(0)}%`;
  const step1 = medianOf(samples.decode1, "wholeMs"), step8 = medianOf(samples.decode8, "wholeMs");
  return {
    "decode b1 tok/s": (1000 / step1).toFixed(1),
    "read GB/s": (read / 1e9).toFixed(1),
    "of it": ofBandwidth(step1),
    "in its thread": ofBandwidth(medianOf(samples.decode1, "latencyMs")),
    "decode b8 tok/s": (8000 / step8).toFixed(1),
    "b8 / b1": (8 * step1 / step8).toFixed(2),
    "prefill 512 tok/s": median(samples.prefill).toFixed(0),
  };
}

async function oneRound(driver: Driver, samples: Samples, reader: Reader): Promise<void> {
  await driver.prefill(1, contextTokens);
  for (let i = 0; i <= stepsPerRound; i++) {
    const bandwidth = reader.read();
    const time = await driver.decode();
    if (i === 0) continue; // warm-up
    samples.bandwidth.push(bandwidth);
    samples.decode1.push(time);
  }
  await driver.prefill(8, contextTokens);
  await driver.decode();
  for (let i = 0; i < stepsPerRound; i++) samples.decode8.push(await driver.decode());
  samples.prefill.push(await driver.prefill(1, 512));
}

interface Reader {
  /** Reads all of the memory once, with all threads. Returns bytes per second. */
  read(): number;
  close(): void;
}

/** Allocates memory as large as the weights, and threads to read it that are pinned like an executor's. */
async function openReader(byteLength: number, cpus: readonly number[]): Promise<Reader> {
  const kernels = await loadCpuKernels({ set: null, threads: cpus.length, cpus });
  const memory = kernels.alloc(byteLength);
  kernels.bytes(memory, byteLength).fill(1);
  return {
    read: () => {
      const startedMs = performance.now();
      kernels.readMemory(memory, byteLength);
      return byteLength / (performance.now() - startedMs) * 1000;
    },
    close: () => kernels.close(),
  };
}

/** Runs the benchmark for the fastest kernel set of this machine and for WASM. */
export async function benchEngine(): Promise<void> {
  const fastest = await loadCpuKernels({ set: null, threads: 1 });
  const sets = [...new Set([fastest.name, "wasm" as const])];
  fastest.close();
  const known = sets.filter((set) => kernelSets.includes(set));
  for (const shape of shapes) await benchShape(shape, known);
}

if (import.meta.main) await benchEngine();
