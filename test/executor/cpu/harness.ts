/** Drives an executor as a scheduler would, with block tables scattered over the pool. */
import { kernelSetStates } from "../../../ffi/cpu_kernels/load.ts";
import { engineDefaults } from "../../../src/cli/arguments/tables.ts";
import type { SamplingParams, TokenLogprobs } from "../../../src/core/protocol/generate.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import { Random } from "../../../src/core/random.ts";
import { samplingDefaults } from "../../../src/core/sampling.ts";
import { loadCpuExecutor } from "../../../src/executor/cpu/load.ts";
import type { Executor, StepOutput } from "../../../src/executor/executor.ts";

/** Kernel sets that run here. */
export const kernelSets = kernelSetStates()
  .filter(({ unavailable }) => unavailable === null)
  .map(({ set }) => set);

export const defaultOptions: EngineOptions = {
  ...engineDefaults(),
  model: "llumnix-tiny",
  maxModelLen: 256,
  swapSpace: 0.01,
  preemptionMode: "swap",
  numGpuBlocksOverride: 128,
  maxNumSeqs: 16,
  device: "cpu",
  cpuThreads: 1,
};

export const greedy: SamplingParams = {
  ...samplingDefaults,
  maxTokens: 64,
  temperature: 0,
  seed: 0,
  eosTokenIds: [],
  ignoreEos: true,
};

export function load(options: Partial<EngineOptions>): Promise<Executor> {
  const spec = { device: "cpu" as const, options: { ...defaultOptions, ...options }, hostShare: 1 };
  return loadCpuExecutor(spec, () => {});
}

export interface TestSequence {
  readonly handle: number;
  readonly params: SamplingParams;
  readonly prompt: readonly number[];
  readonly output: number[];
  readonly logprobs: (TokenLogprobs | null)[];
  promptLogprobs: (TokenLogprobs | null)[] | null;
  blocks: number[];
  /** Blocks of the swap pool while it is swapped out. */
  swapped: number[];
}

export class Driver {
  readonly #executor: Executor;
  readonly #free: number[];
  readonly #freeSwap: number[];
  readonly #random: Random;
  #nextHandle = 0;
  #stepId = 0;
  #added: TestSequence[] = [];
  #removed: number[] = [];
  #swapOut: number[] = [];
  #swapIn: number[] = [];

  constructor(executor: Executor, seed = 1) {
    this.#executor = executor;
    this.#random = new Random(seed);
    this.#free = Array.from({ length: executor.info.numBlocks }, (_, i) => i);
    this.#freeSwap = Array.from({ length: executor.info.numSwapBlocks }, (_, i) => i);
  }

  add(prompt: readonly number[], params: Partial<SamplingParams> = {}): TestSequence {
    const sequence: TestSequence = {
      handle: this.#nextHandle++,
      params: { ...greedy, ...params },
      prompt,
      output: [],
      logprobs: [],
      promptLogprobs: null,
      blocks: [],
      swapped: [],
    };
    this.#added.push(sequence);
    return sequence;
  }

  remove(sequence: TestSequence): void {
    this.forget(sequence);
    this.#removed.push(sequence.handle);
  }

  /** Frees the sequence's blocks, so that it must be prefilled again. */
  forget(sequence: TestSequence): void {
    this.#free.push(...sequence.blocks);
    sequence.blocks = [];
  }

  /** Takes the blocks of a sequence that comes from another executor, after so many tokens of output. */
  arrive(sequence: TestSequence, output: readonly number[]): void {
    sequence.output.push(...output);
    const { blockSize } = this.#executor.info.layout;
    const cached = sequence.prompt.length + output.length - 1;
    for (let i = 0; i * blockSize < cached; i++) sequence.blocks.push(this.#take(this.#free));
  }

  swapOut(sequence: TestSequence): void {
    for (const block of sequence.blocks) {
      const target = this.#take(this.#freeSwap);
      sequence.swapped.push(target);
      this.#swapOut.push(block, target);
    }
    this.forget(sequence);
  }

  swapIn(sequence: TestSequence): void {
    for (const block of sequence.swapped) {
      const target = this.#take(this.#free);
      sequence.blocks.push(target);
      this.#swapIn.push(block, target);
    }
    this.#freeSwap.push(...sequence.swapped);
    sequence.swapped = [];
  }

  /** One step: prompt and outputs so far of each sequence. */
  prefill(...sequences: TestSequence[]): Promise<StepOutput> {
    return this.#step("prefill", sequences, (s) => s.prompt.length + s.output.length);
  }

  /** One step: the newest token of each sequence. */
  decode(...sequences: TestSequence[]): Promise<StepOutput> {
    return this.#step("decode", sequences, () => 1);
  }

  /** Prefill, then decode until there are `count` output tokens. */
  async generate(sequence: TestSequence, count: number): Promise<number[]> {
    await this.prefill(sequence);
    while (sequence.output.length < count) await this.decode(sequence);
    return sequence.output;
  }

  async #step(
    kind: "prefill" | "decode",
    sequences: readonly TestSequence[],
    queryLen: (sequence: TestSequence) => number,
  ): Promise<StepOutput> {
    const { blockSize } = this.#executor.info.layout;
    const contextLens = sequences.map((s) => s.prompt.length + s.output.length);
    sequences.forEach((sequence, i) => {
      const needed = Math.ceil(contextLens[i] / blockSize);
      while (sequence.blocks.length < needed) sequence.blocks.push(this.#take(this.#free));
    });
    const maxBlocks = Math.max(...sequences.map((s) => s.blocks.length)) + 1;
    const blockTables = new Int32Array(sequences.length * maxBlocks).fill(-1);
    const tokenIds: number[] = [];
    const queryStarts = [0];
    sequences.forEach((sequence, i) => {
      blockTables.set(sequence.blocks, i * maxBlocks);
      tokenIds.push(...[...sequence.prompt, ...sequence.output].slice(-queryLen(sequence)));
      queryStarts.push(tokenIds.length);
    });
    const output = await this.#executor.step({
      stepId: this.#stepId++,
      kind,
      removed: this.#removed,
      added: this.#added.map(({ handle, params, prompt, output }) => ({
        handle,
        params,
        promptTokenIds: prompt,
        outputTokenIds: [...output],
      })),
      swapOut: Int32Array.from(this.#swapOut),
      swapIn: Int32Array.from(this.#swapIn),
      handles: Int32Array.from(sequences, (s) => s.handle),
      tokenIds: Int32Array.from(tokenIds),
      queryStarts: Int32Array.from(queryStarts),
      contextLens: Int32Array.from(contextLens),
      blockTables,
      maxBlocks,
    });
    [this.#added, this.#removed, this.#swapOut, this.#swapIn] = [[], [], [], []];
    sequences.forEach((sequence, i) => {
      sequence.output.push(output.tokenIds[i]);
      sequence.logprobs.push(output.logprobs?.[i] ?? null);
      sequence.promptLogprobs ??= output.promptLogprobs?.[i] ?? null;
    });
    return output;
  }

  /** A random free block. */
  #take(free: number[]): number {
    if (free.length === 0) throw new Error("the test needs more blocks");
    const [block] = free.splice(this.#random.below(free.length), 1);
    return block;
  }
}

/** Logits less their mean, which is all that log probabilities over the whole vocabulary tell. */
export function centredLogits(logprobs: TokenLogprobs, vocabSize: number): Float64Array {
  const values = new Float64Array(vocabSize);
  for (const [tokenId, logprob] of logprobs.top) values[tokenId] = logprob ?? -Infinity;
  return centred(values);
}

export function centred(values: Float64Array): Float64Array {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.map((value) => value - mean);
}

/** Norm of the difference over the norm of the truth, over all rows. */
export function relativeError(found: Float64Array[], truth: Float64Array[]): number {
  let difference = 0, norm = 0;
  truth.forEach((row, r) =>
    row.forEach((value, i) => {
      difference += (found[r][i] - value) ** 2;
      norm += value ** 2;
    })
  );
  return Math.sqrt(difference / norm);
}

/** A seeded prompt. */
export function randomPrompt(seed: number, length: number, vocabSize: number): number[] {
  const random = new Random(seed);
  return Array.from({ length }, () => random.below(vocabSize));
}
