/**
 * Speed of the CPU executor on random weights: decode at batch 1 and 8, prefill of 512 tokens, and
 * how much of the memory's streaming read bandwidth decoding uses. Rounds of all kernel sets are
 * interleaved, so that a machine whose speed drifts drifts for all of them.
 */
import { kernelSets } from "../../ffi/cpu_kernels/kernels.ts";
import { allowedCpus, loadCpuKernels } from "../../ffi/cpu_kernels/load.ts";
import { engineDefaults } from "../../src/cli/arguments/tables.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import type { SamplingParams } from "../../src/core/messages.ts";
import { samplingDefaults } from "../../src/core/sampling.ts";
import type { Executor, StepInput } from "../../src/executor/executor.ts";
import { loadThreadedExecutor } from "../../src/executor/threaded_executor.ts";
import { median, printTable } from "./table.ts";

interface Shape {
  readonly name: string;
  readonly config: Record<string, unknown>;
}

const common = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
  torch_dtype: "bfloat16",
};

const shapes: readonly Shape[] = [
  {
    name: "135M",
    config: {
      ...common,
      vocab_size: 49152,
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
    },
  },
  {
    name: "0.5B",
    config: {
      ...common,
      vocab_size: 151936,
      hidden_size: 896,
      intermediate_size: 4864,
      num_hidden_layers: 24,
      num_attention_heads: 14,
      num_key_value_heads: 2,
    },
  },
];

const contextTokens = 128;
const rounds = 3;
const stepsPerRound = 10;

const greedy: SamplingParams = {
  ...samplingDefaults,
  maxTokens: 1 << 20,
  temperature: 0,
  seed: 0,
  eosTokenIds: [],
  ignoreEos: true,
};

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
        params: greedy,
        promptTokenIds: prompts[i],
        outputTokenIds: [],
      })),
    }));
    return batch * tokens / (performance.now() - startedMs) * 1000;
  }

  /** One decode step of all sequences. Returns its milliseconds. */
  async decode(): Promise<number> {
    this.#lengths = this.#lengths.map((length) => length + 1);
    const tokens = this.#lengths.map((length) => [length * 31 % 40000]);
    const startedMs = performance.now();
    await this.executor.step(this.#input("decode", tokens, { removed: [], added: [] }));
    return performance.now() - startedMs;
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

interface Samples {
  readonly decode1: number[];
  readonly decode8: number[];
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
    const runs: { set: string; driver: Driver; samples: Samples }[] = [];
    for (const set of sets) {
      // On a thread of its own, as in an instance: kernels pin the thread that loads them.
      const options = engineOptions(directory, set);
      const executor = await loadThreadedExecutor({ kind: "cpu", options, hostShare: 1 });
      const samples = { decode1: [], decode8: [], prefill: [] };
      runs.push({ set: executor.info.description, driver: new Driver(executor), samples });
    }
    const bandwidth: number[] = [];
    for (let round = 0; round < rounds; round++) {
      bandwidth.push(await readBandwidth());
      for (const { driver, samples } of runs) await oneRound(driver, samples);
    }
    const read = median(bandwidth);
    printTable(
      `CPU engine, ${name} shape, bfloat16; streaming read ${(read / 1e9).toFixed(1)} GB/s`,
      runs.map(({ set, samples }) => {
        const step1 = median(samples.decode1), step8 = median(samples.decode8);
        return {
          "kernel set": set,
          "decode b1 tok/s": (1000 / step1).toFixed(1),
          "of bandwidth": `${(decodeBytes(config) / step1 * 1000 / read * 100).toFixed(0)}%`,
          "decode b8 tok/s": (8000 / step8).toFixed(1),
          "b8 / b1": (8 * step1 / step8).toFixed(2),
          "prefill 512 tok/s": median(samples.prefill).toFixed(0),
        };
      }),
    );
    for (const { driver } of runs) await driver.executor.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function oneRound(driver: Driver, samples: Samples): Promise<void> {
  for (const [batch, times] of [[1, samples.decode1], [8, samples.decode8]] as const) {
    await driver.prefill(batch, contextTokens);
    await driver.decode();
    const steps = [];
    for (let i = 0; i < stepsPerRound; i++) steps.push(await driver.decode());
    times.push(median(steps));
  }
  samples.prefill.push(await driver.prefill(1, 512));
}

/** Bytes per second that all threads together read from memory larger than the caches. */
async function readBandwidth(): Promise<number> {
  // Pinned like the executor's threads: two of them on one CPU would halve the figure.
  const cpus = allowedCpus();
  const kernels = await loadCpuKernels({ set: null, threads: cpus.length, cpus });
  const bytes = 512 << 20;
  const memory = kernels.alloc(bytes);
  kernels.bytes(memory, bytes).fill(1);
  let best = 0;
  for (let i = 0; i < 5; i++) {
    const startedMs = performance.now();
    kernels.readMemory(memory, bytes);
    best = Math.max(best, bytes / (performance.now() - startedMs) * 1000);
  }
  kernels.close();
  return best;
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
