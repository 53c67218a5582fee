import { UsageError } from "../../core/errors.ts";
import { blockBytes, type KvLayout } from "../../kv/layout.ts";
import { AccountedKvPool } from "../../kv/pool/accounted_kv_pool.ts";
import type { KvPool } from "../../kv/pool/pool.ts";
import type { Executor, ExecutorInfo, ExecutorSpec, StepInput, StepOutput } from "../executor.ts";
import { modelIdentity } from "../../model/locate.ts";
import { SEEDED_VOCAB_SIZE, SeededSampler } from "../sampling/seeded_sampler.ts";

const DEFAULT_MAX_MODEL_LEN = 4096;
const DEFAULT_NUM_BLOCKS = 16384;
const GIB = 2 ** 30;

/**
 * An executor without a model, for measuring everything around an executor. Each token is a function of
 * the request's seed and the token's position. It takes no time and no memory, and counts blocks of the
 * shape of LLaMA-7B in half precision.
 */
export class NullExecutor implements Executor {
  readonly info: ExecutorInfo;
  readonly pool: KvPool;
  readonly #sampler = new SeededSampler();
  #isClosed = false;

  /** @throws {UsageError} fewer than one block */
  constructor(spec: ExecutorSpec) {
    const { options } = spec;
    const layout: KvLayout = {
      format: "k-transposed",
      dtype: options.dtype === "float" || options.dtype === "float32" ? "float32" : "float16",
      numLayers: 32,
      numKvHeads: 32,
      headDim: 128,
      blockSize: options.blockSize,
    };
    const numBlocks = options.numGpuBlocksOverride ?? DEFAULT_NUM_BLOCKS;
    if (numBlocks < 1) {
      throw new UsageError(`--num-gpu-blocks-override is ${numBlocks}, expected 1 or more`);
    }
    this.info = {
      description: "null (no model)",
      model: options.model === null ? "null" : modelIdentity(options.model),
      dtype: layout.dtype,
      vocabSize: SEEDED_VOCAB_SIZE,
      maxModelLen: options.maxModelLen ?? DEFAULT_MAX_MODEL_LEN,
      layout,
      numBlocks,
      numSwapBlocks: Math.floor(options.swapSpace * GIB / blockBytes(layout)),
    };
    this.pool = new AccountedKvPool(layout, numBlocks);
  }

  step(input: StepInput): Promise<StepOutput> {
    if (this.#isClosed) return Promise.reject(new Error("the null executor is closed"));
    try {
      return Promise.resolve(this.#sampler.sample(input, 0));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.#sampler.clear();
    return Promise.resolve();
  }
}

/** Makes a {@linkcode NullExecutor}; there is nothing to load. */
export function loadNullExecutor(spec: ExecutorSpec): Promise<Executor> {
  return Promise.resolve(new NullExecutor(spec));
}
