/** Measures the steps of an executor over a grid of sizes. */
import type { SamplingParams } from "../../core/protocol/generate.ts";
import { samplingDefaults } from "../../core/sampling.ts";
import type { Executor, StepInput } from "../../executor/executor.ts";
import type { StepSample } from "./step_log.ts";

export interface Grid {
  /** Tokens of the prompts of prefill steps. */
  readonly promptTokens: readonly number[];
  /** Sequences of decode steps. */
  readonly batches: readonly number[];
  /** Tokens of each sequence of decode steps. */
  readonly contexts: readonly number[];
  /** How often each size is measured. */
  readonly repeats: number;
}

/** Doubling sizes that fit an executor. */
export function gridOf(
  { info: { maxModelLen, maxPieceTokens, numBlocks, layout } }: Executor,
  limits: { readonly maxTokens: number; readonly maxBatch: number; readonly repeats: number },
): Grid {
  const capacity = numBlocks * layout.blockSize;
  const longest = Math.min(limits.maxTokens, maxModelLen - 1, maxPieceTokens ?? Infinity, capacity);
  return {
    promptTokens: doubling(8, longest),
    batches: doubling(1, Math.min(limits.maxBatch, numBlocks)),
    contexts: doubling(16, longest),
    repeats: limits.repeats,
  };
}

function doubling(from: number, to: number): number[] {
  const sizes: number[] = [];
  for (let size = from; size < to; size *= 2) sizes.push(size);
  return [...sizes, Math.max(1, to)];
}

/** Tokens are drawn without an end. */
const params: SamplingParams = {
  ...samplingDefaults,
  ...{ maxTokens: 1 << 30, temperature: 0, seed: 0, eosTokenIds: [], ignoreEos: true },
};

/**
 * Runs every size of the grid; sizes that the KV cache does not hold are left out. Rounds go through all sizes,
 * so that a drift of the machine's speed affects all of them.
 * @param onStep called after each measured step
 */
export async function measureGrid(
  executor: Executor,
  grid: Grid,
  onStep: (done: number, total: number) => void = () => {},
): Promise<StepSample[]> {
  const { numBlocks, layout: { blockSize } } = executor.info;
  const driver = new Driver(executor);
  const decodes = grid.batches.flatMap((batch) =>
    grid.contexts.map((context) => ({ batch, context }))
  ).filter(({ batch, context }) => batch * Math.ceil((context + 1) / blockSize) <= numBlocks);
  const total = grid.repeats * (grid.promptTokens.length + decodes.length);
  const samples: StepSample[] = [];
  await driver.prefill(grid.promptTokens[0]); // warm-up
  for (let round = 0; round < grid.repeats; round++) {
    for (const tokens of grid.promptTokens) {
      samples.push(await driver.prefill(tokens));
      onStep(samples.length, total);
    }
    for (const { batch, context } of decodes) {
      samples.push(await driver.decode(batch, context));
      onStep(samples.length, total);
    }
  }
  return samples;
}

/** Builds steps by hand. KV caches hold whatever was there: only the time counts. */
class Driver {
  #stepId = 0;
  #nextHandle = 0;
  #handles: number[] = [];

  constructor(private readonly executor: Executor) {}

  async prefill(tokens: number): Promise<StepSample> {
    const latencyMs = await this.#step("prefill", [tokens], [tokens]);
    return { kind: "prefill", sequences: 1, tokens, latencyMs };
  }

  async decode(batch: number, context: number): Promise<StepSample> {
    const lengths = Array<number>(batch).fill(context);
    const latencyMs = await this.#step("decode", lengths.map(() => 1), lengths);
    return { kind: "decode", sequences: batch, tokens: batch * context, latencyMs };
  }

  /** @param queries tokens of each sequence that are computed @param lengths of the sequences with those */
  async #step(
    kind: StepInput["kind"],
    queries: readonly number[],
    lengths: readonly number[],
  ): Promise<number> {
    const { vocabSize, layout: { blockSize }, hasNoCache = false } = this.executor.info;
    const removed = this.#handles;
    this.#handles = queries.map(() => this.#nextHandle++);
    const tokens = queries.map((count, row) =>
      Array.from({ length: count }, (_, i) => (i * 7919 + row * 31) % vocabSize)
    );
    const starts = [0];
    for (const count of queries) starts.push(starts.at(-1)! + count);
    const maxBlocks = Math.ceil(Math.max(...lengths) / blockSize);
    const input: StepInput = {
      stepId: this.#stepId++,
      kind,
      removed,
      added: this.#handles.map((handle, row) => ({
        handle,
        params,
        promptTokenIds: kind === "prefill" ? tokens[row] : Array(lengths[row] - 1).fill(1),
        outputTokenIds: kind === "prefill" ? [] : [1],
      })),
      swapOut: new Int32Array(),
      swapIn: new Int32Array(),
      handles: Int32Array.from(this.#handles),
      tokenIds: hasNoCache ? new Int32Array() : Int32Array.from(tokens.flat()),
      queryStarts: Int32Array.from(starts),
      contextLens: Int32Array.from(lengths),
      blockTables: hasNoCache
        ? new Int32Array()
        : Int32Array.from({ length: lengths.length * maxBlocks }, (_, i) => i),
      maxBlocks,
    };
    const { latencyMs } = await this.executor.step(input);
    return latencyMs;
  }
}
