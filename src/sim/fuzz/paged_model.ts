import type {
  Executor,
  ExecutorInfo,
  StepInput,
  StepOutput,
  StepPipeline,
} from "../../executor/executor.ts";
import { type KvLayout, layerBytes } from "../../kv/layout.ts";
import { ArrayKvPool } from "../../kv/pool/array_kv_pool.ts";
import type { HostPool } from "../../kv/pool/pool.ts";

export interface PagedModelShape {
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly numSwapBlocks: number;
  readonly maxModelLen?: number;
  /** Longer prompts come in pieces; default: all come whole. */
  readonly maxPieceTokens?: number;
  /** The model runs ahead: see {@linkcode PagedPipeline}. Default false. */
  readonly runsAhead?: boolean;
}

export const PAGED_VOCAB_SIZE = 128;
const NUM_LAYERS = 2;

/** Mixes `value` into a 32-bit hash (murmur3's steps). */
function mix(hash: number, value: number): number {
  hash = Math.imul(hash ^ value, 0xcc9e2d51);
  return Math.imul(hash ^ (hash >>> 15), 0x1b873593) ^ (hash >>> 13);
}

/** The value of a token in a layer of the cache; never 0, which stands for garbage. */
function cellOf(tokenId: number, position: number, layer: number): number {
  return mix(mix(layer + 1, tokenId), position) | 1;
}

function tokenOf(contextHash: number, seed: number): number {
  return (mix(contextHash, seed) >>> 0) % PAGED_VOCAB_SIZE;
}

/** The output of an undisturbed request. */
export function expectedOutput(
  promptTokenIds: readonly number[],
  seed: number,
  numTokens: number,
): number[] {
  const tokens = [...promptTokenIds];
  let hash = 0;
  let position = 0;
  while (tokens.length < promptTokenIds.length + numTokens) {
    for (; position < tokens.length; position++) {
      for (let layer = 0; layer < NUM_LAYERS; layer++) {
        hash = mix(hash, cellOf(tokens[position], position, layer));
      }
    }
    tokens.push(tokenOf(hash, seed));
  }
  return tokens.slice(promptTokenIds.length);
}

/**
 * Steps that run as late as the contract allows: each when its output is asked for, after the next step was
 * given. A block that was freed too early has other contents by then.
 */
class PagedPipeline implements StepPipeline {
  #pending: StepInput | null = null;

  constructor(private readonly run: (input: StepInput) => Promise<StepOutput>) {}

  start(input: StepInput): Promise<void> {
    if (this.#pending !== null || input.isAhead) throw new Error("the pipeline has a step already");
    this.#pending = this.#copyOf(input);
    return Promise.resolve();
  }

  async follow(input: StepInput): Promise<StepOutput> {
    if (!input.isAhead) throw new Error("a step that follows is ahead");
    const next = this.#copyOf(input);
    const output = await this.collect();
    // The tokens that the step before has chosen.
    next.tokenIds.forEach((token, i) => {
      if (token < 0) next.tokenIds[i] = output.tokenIds[-1 - token];
    });
    this.#pending = next;
    return output;
  }

  collect(): Promise<StepOutput> {
    const pending = this.#pending;
    if (pending === null) throw new Error("no step is under way");
    this.#pending = null;
    return this.run(pending);
  }

  #copyOf(input: StepInput): StepInput {
    if (input.kind !== "decode") throw new Error("not a step for a pipeline");
    const changes = input.added.length + input.swapOut.length + input.swapIn.length;
    if (input.isAhead && changes > 0) throw new Error("a step ahead announces and copies nothing");
    return structuredClone(input);
  }
}

/**
 * A tiny model whose next token depends on every cell of the context, read through the block table as
 * attention does. A block that was lost, shared, moved wrongly or reused too early changes the tokens.
 * It also checks the form of every step.
 */
export class PagedModel implements Executor {
  readonly info: ExecutorInfo;
  readonly pool: HostPool;
  readonly pipeline?: StepPipeline;
  readonly #device: Int32Array<ArrayBuffer>;
  readonly #swap: Int32Array<ArrayBuffer>;
  readonly #seeds = new Map<number, number>();
  readonly #wordsPerLayer: number;

  constructor(shape: PagedModelShape) {
    const { blockSize, numBlocks, numSwapBlocks, maxModelLen = 256, maxPieceTokens } = shape;
    const { runsAhead } = shape;
    const layout: KvLayout = {
      format: "k-transposed",
      dtype: "float32",
      numLayers: NUM_LAYERS,
      numKvHeads: 1,
      headDim: 1,
      blockSize,
    };
    this.info = {
      description: "paged model",
      model: "paged",
      dtype: layout.dtype,
      vocabSize: PAGED_VOCAB_SIZE,
      maxModelLen,
      maxPieceTokens,
      runsAhead,
      layout,
      numBlocks,
      numSwapBlocks,
    };
    this.#wordsPerLayer = layerBytes(layout) / Int32Array.BYTES_PER_ELEMENT;
    this.#device = new Int32Array(numBlocks * NUM_LAYERS * this.#wordsPerLayer);
    this.pool = new ArrayKvPool(layout, numBlocks, new Uint8Array(this.#device.buffer));
    this.#swap = new Int32Array(numSwapBlocks * NUM_LAYERS * this.#wordsPerLayer);
    if (runsAhead) this.pipeline = new PagedPipeline((input) => this.step(input));
  }

  /** Sequences that the executor holds state for. */
  get numHandles(): number {
    return this.#seeds.size;
  }

  step(input: StepInput): Promise<StepOutput> {
    return Promise.resolve(this.stepNow(input));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  stepNow(input: StepInput): StepOutput {
    for (const handle of input.removed) {
      if (!this.#seeds.delete(handle)) throw new Error(`handle ${handle} removed, never added`);
    }
    for (const { handle, params } of input.added) {
      if (this.#seeds.has(handle)) throw new Error(`handle ${handle} added twice`);
      this.#seeds.set(handle, params.seed);
    }
    this.#copy(this.#device, this.#swap, input.swapOut);
    this.#copy(this.#swap, this.#device, input.swapIn);
    const written = new Set<number>();
    const tokenIds = new Int32Array(input.handles.length);
    for (let i = 0; i < tokenIds.length; i++) tokenIds[i] = this.#next(input, i, written);
    if (input.isPartial) {
      if (input.kind !== "prefill" || tokenIds.length !== 1) throw new Error("not a piece");
      tokenIds[0] = -1;
    }
    return { stepId: input.stepId, tokenIds, latencyMs: 1 };
  }

  #next(input: StepInput, row: number, written: Set<number>): number {
    const { numBlocks, layout: { blockSize } } = this.info;
    const wordsPerLayer = this.#wordsPerLayer;
    const seed = this.#seeds.get(input.handles[row]);
    if (seed === undefined) throw new Error(`handle ${input.handles[row]} was never added`);
    const contextLen = input.contextLens[row];
    const start = input.queryStarts[row], queryLen = input.queryStarts[row + 1] - start;
    const { maxPieceTokens } = this.info;
    const isWhole = queryLen === (input.kind === "prefill" ? contextLen : 1);
    const isPiece = maxPieceTokens !== undefined && input.kind === "prefill" && queryLen >= 1 &&
      queryLen <= maxPieceTokens;
    if (!isWhole && !isPiece) throw new Error(`${queryLen} new tokens in a ${input.kind} step`);
    let hash = 0;
    for (let position = 0; position < contextLen; position++) {
      const block = input.blockTables[row * input.maxBlocks + Math.floor(position / blockSize)];
      if (!(block >= 0 && block < numBlocks)) throw new Error(`block ${block} does not exist`);
      const cell = block * NUM_LAYERS * wordsPerLayer + position % blockSize;
      const query = position - (contextLen - queryLen);
      if (query >= 0) {
        if (written.has(cell)) {
          throw new Error(`two tokens of a step in one slot of block ${block}`);
        }
        written.add(cell);
      }
      for (let layer = 0; layer < NUM_LAYERS; layer++) {
        const word = cell + layer * wordsPerLayer;
        if (query >= 0) {
          this.#device[word] = cellOf(input.tokenIds[start + query], position, layer);
        }
        hash = mix(hash, this.#device[word]);
      }
    }
    return tokenOf(hash, seed);
  }

  #copy(from: Int32Array, to: Int32Array, pairs: Int32Array): void {
    const words = NUM_LAYERS * this.#wordsPerLayer;
    for (let i = 0; i < pairs.length; i += 2) {
      const source = pairs[i] * words;
      to.set(from.subarray(source, source + words), pairs[i + 1] * words);
    }
  }
}
