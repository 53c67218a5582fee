import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { bytesAt } from "../../../ffi/memory.ts";
import { type ErrorRecord, ModelError, toErrorRecord, UsageError } from "../../core/errors.ts";
import { blockBytes, type KvLayout } from "../../kv/layout.ts";
import {
  allocateBlocks,
  allocateSwapBlocks,
  openOwnDevice,
  type OwnDevice,
} from "../../kv/pool/cuda/cuda_device.ts";
import { CudaKvPool } from "../../kv/pool/cuda/cuda_kv_pool.ts";
import { CudaSwap } from "../../kv/pool/cuda/cuda_swap.ts";
import type { DevicePool } from "../../kv/pool/pool.ts";
import { modelIdentity } from "../../model/locate.ts";
import type { Executor, ExecutorInfo, ExecutorSpec, StepInput, StepOutput } from "../executor.ts";
import { SEEDED_VOCAB_SIZE, SeededSampler } from "../sampling/seeded_sampler.ts";
import { BlockPattern, type SequenceKey, sequenceKey, shownKey } from "./pattern.ts";

const DEFAULT_MAX_MODEL_LEN = 4096;
const DEFAULT_NUM_BLOCKS = 4096;
const GIB = 2 ** 30;
/** Blocks that are copied to the host at once, to be checked. */
const CHECKED_BLOCKS = 64;

/** A block of a sequence of the step. */
interface StepBlock {
  /** Index of the sequence in the step. */
  readonly sequence: number;
  readonly key: SequenceKey;
  readonly block: number;
  /** Positions [first, start) hold the pattern already, [start, end) get it in this step. */
  readonly first: number;
  readonly start: number;
  readonly end: number;
}

/**
 * The null executor with a KV cache in the memory of a CUDA device. Each step writes the pattern of its new
 * tokens, and checks that of all earlier tokens of its sequences. A sequence whose cache is wrong fails.
 */
export class NullCudaExecutor implements Executor {
  readonly info: ExecutorInfo;
  readonly pool: DevicePool;
  readonly #cuda: Cuda;
  readonly #device: OwnDevice;
  readonly #stream: bigint;
  readonly #swap: CudaSwap;
  /** Pinned memory of the swap pool; 0 if there is none. */
  readonly #swapAddress: bigint;
  /** Pinned memory of {@linkcode CHECKED_BLOCKS} blocks. */
  readonly #hostAddress: bigint;
  readonly #hostWords: Uint32Array;
  readonly #pattern: BlockPattern;
  /** By handle. */
  readonly #keys = new Map<number, SequenceKey>();
  readonly #sampler = new SeededSampler();
  #isClosed = false;

  /**
   * @param device is current on this thread
   * @throws {UsageError} fewer than one block, or too little memory
   */
  constructor(device: OwnDevice, { options }: ExecutorSpec) {
    const layout: KvLayout = {
      format: "pattern",
      dtype: options.dtype === "float" || options.dtype === "float32" ? "float32" : "float16",
      numLayers: 4,
      numKvHeads: 1,
      headDim: 64,
      blockSize: options.blockSize,
    };
    const numBlocks = options.numGpuBlocksOverride ?? DEFAULT_NUM_BLOCKS;
    if (numBlocks < 1) {
      throw new UsageError(`--num-gpu-blocks-override is ${numBlocks}, expected 1 or more`);
    }
    const swapBlocks = Math.floor(options.swapSpace * GIB / blockBytes(layout));
    const numSwapBlocks = Math.min(numBlocks, swapBlocks);
    const { cuda } = device;
    this.#cuda = cuda;
    this.#device = device;
    const { softwareDevice, name } = cuda.library;
    this.info = {
      description: `null-cuda (no model, ${softwareDevice ? "the software device" : name})`,
      model: options.model === null ? "null" : modelIdentity(options.model),
      dtype: layout.dtype,
      vocabSize: SEEDED_VOCAB_SIZE,
      maxModelLen: options.maxModelLen ?? DEFAULT_MAX_MODEL_LEN,
      layout,
      numBlocks,
      numSwapBlocks,
    };
    const address = allocateBlocks(cuda, layout, numBlocks);
    this.#swapAddress = allocateSwapBlocks(cuda, layout, numSwapBlocks);
    const hostBytes = CHECKED_BLOCKS * blockBytes(layout);
    this.#hostAddress = cuda.hostAlloc(hostBytes);
    this.#hostWords = new Uint32Array(bytesAt(this.#hostAddress, hostBytes).buffer);
    this.#stream = cuda.createStream();
    this.#pattern = new BlockPattern(layout);
    this.#swap = new CudaSwap(
      cuda,
      layout,
      { address, numBlocks },
      { address: this.#swapAddress, numBlocks: numSwapBlocks },
    );
    this.pool = new CudaKvPool({ cuda, layout, numBlocks, address, ordinal: device.ordinal });
  }

  // deno-lint-ignore require-await -- an error must be a rejection
  async step(input: StepInput): Promise<StepOutput> {
    if (this.#isClosed) throw new Error("the null-cuda executor is closed");
    const startedMs = performance.now();
    for (const handle of input.removed) this.#keys.delete(handle);
    for (const { handle, promptTokenIds, params } of input.added) {
      this.#keys.set(handle, sequenceKey(promptTokenIds, params.seed));
    }
    this.#swap.submit(input.swapOut, input.swapIn, this.#stream);
    const failures: (ErrorRecord | null)[] = new Array(input.handles.length).fill(null);
    const blocks = this.#blocksOf(input);
    for (let i = 0; i < blocks.length; i += CHECKED_BLOCKS) {
      this.#checkAndWrite(blocks.slice(i, i + CHECKED_BLOCKS), failures);
    }
    this.#cuda.synchronizeStream(this.#stream);
    const output = this.#sampler.sample(input, performance.now() - startedMs);
    return failures.some(Boolean) ? { ...output, failures } : output;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#sampler.clear();
    await this.pool.close();
    this.#cuda.destroyStream(this.#stream);
    this.#cuda.free(this.pool.address);
    this.#cuda.hostFree(this.#hostAddress);
    if (this.#swapAddress !== 0n) this.#cuda.hostFree(this.#swapAddress);
    this.#device.release();
  }

  #blocksOf(input: StepInput): StepBlock[] {
    const { handles, queryStarts, contextLens, blockTables, maxBlocks } = input;
    const { layout: { blockSize }, numBlocks } = this.info;
    const blocks: StepBlock[] = [];
    for (let sequence = 0; sequence < handles.length; sequence++) {
      const key = this.#keys.get(handles[sequence]);
      if (key === undefined) throw new Error(`handle ${handles[sequence]} was never added`);
      const contextLen = contextLens[sequence];
      const newFrom = contextLen - (queryStarts[sequence + 1] - queryStarts[sequence]);
      for (let first = 0; first < contextLen; first += blockSize) {
        const end = Math.min(first + blockSize, contextLen);
        const start = Math.min(Math.max(first, newFrom), end);
        const block = blockTables[sequence * maxBlocks + first / blockSize];
        if (!(block >= 0 && block < numBlocks)) {
          throw new RangeError(`block ${block} of a KV pool of ${numBlocks}`);
        }
        blocks.push({ sequence, key, block, first, start, end });
      }
    }
    return blocks;
  }

  /** The stream orders the copies of the next call, which use the same host memory, behind these. */
  #checkAndWrite(blocks: readonly StepBlock[], failures: (ErrorRecord | null)[]): void {
    const bytes = blockBytes(this.info.layout);
    const reads = new CopyList();
    blocks.forEach(({ block, first, start }, i) => {
      if (first < start) reads.add(this.#hostAt(i), this.#deviceAt(block), bytes);
    });
    reads.submit(this.#cuda, this.#stream);
    this.#cuda.synchronizeStream(this.#stream);
    const writes = new CopyList();
    for (const [i, item] of blocks.entries()) {
      const { sequence, key, block, first, start, end } = item;
      const words = this.#hostWords.subarray(i * bytes / 4, (i + 1) * bytes / 4);
      const wrong = this.#pattern.check(words, key, first, start);
      if (wrong !== null) {
        failures[sequence] ??= toErrorRecord(
          new ModelError(
            `The KV cache of sequence ${shownKey(key)} is wrong: block ${block} must hold ` +
              `position ${wrong.position} in layer ${wrong.layer}, and holds ${wrong.found}.`,
          ),
        );
      }
      this.#pattern.write(words, key, start, end);
      this.#addWrites(writes, item, i);
    }
    writes.submit(this.#cuda, this.#stream);
  }

  /** Only the new tokens are written: a write of the whole block would hide that the rest was changed. */
  #addWrites(writes: CopyList, { block, start, end }: StepBlock, i: number): void {
    const { numLayers, blockSize } = this.info.layout;
    const { tokenBytes } = this.#pattern;
    for (let layer = 0; start < end && layer < numLayers; layer++) {
      const offset = (layer * blockSize + start % blockSize) * tokenBytes;
      const byteLength = (end - start) * tokenBytes;
      writes.add(this.#deviceAt(block, offset), this.#hostAt(i, offset), byteLength);
    }
  }

  #deviceAt(block: number, offset = 0): bigint {
    return this.pool.address + BigInt(block * blockBytes(this.info.layout) + offset);
  }

  #hostAt(index: number, offset = 0): bigint {
    return this.#hostAddress + BigInt(index * blockBytes(this.info.layout) + offset);
  }
}

/** Copies that are submitted together. */
class CopyList {
  readonly #destinations: bigint[] = [];
  readonly #sources: bigint[] = [];
  readonly #byteLengths: bigint[] = [];

  add(destination: bigint, source: bigint, byteLength: number): void {
    this.#destinations.push(destination);
    this.#sources.push(source);
    this.#byteLengths.push(BigInt(byteLength));
  }

  submit(cuda: Cuda, stream: bigint): void {
    cuda.copyBatch(
      BigUint64Array.from(this.#destinations),
      BigUint64Array.from(this.#sources),
      BigUint64Array.from(this.#byteLengths),
      this.#sources.length,
      stream,
    );
  }
}

/**
 * Opens the device and makes a {@linkcode NullCudaExecutor}.
 * @throws {UsageError} no driver, no device, or too little memory
 * @throws {UnavailableError} the device cannot be used now
 */
// deno-lint-ignore require-await -- an error must be a rejection
export async function loadNullCudaExecutor(spec: ExecutorSpec): Promise<Executor> {
  const device = openOwnDevice("null-cuda");
  try {
    return new NullCudaExecutor(device, spec);
  } catch (error) {
    device.release();
    throw error;
  }
}
