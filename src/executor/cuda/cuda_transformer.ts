import { CudaError } from "../../../ffi/cuda/errors.ts";
import {
  type CacheLayer,
  elementBytes,
  type RowTables,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import { blockBytes, layerBytes } from "../../kv/layout.ts";
import type { DevicePool } from "../../kv/pool/pool.ts";
import type { ExecutorInfo, StepInput } from "../executor.ts";
import {
  type Slice,
  type SliceLimits,
  type SliceRoom,
  sliceWords,
  writeSlice,
} from "../transformer/slices.ts";
import type { Transformer } from "../transformer/transformer_executor.ts";
import { CudaLogitsHead } from "./cuda_logits_head.ts";
import type { CudaCache, CudaModel } from "./cuda_model.ts";
import { PinnedWords } from "./pinned_words.ts";
import type { CudaLayer } from "./weights.ts";

/** A model on a CUDA device, driven from the calling thread. */
export class CudaTransformer implements Transformer {
  readonly info: ExecutorInfo;
  readonly pool: DevicePool;
  readonly maxRows: number;
  readonly head: CudaLogitsHead;
  readonly #model: CudaModel;
  readonly #cache: CudaCache;
  readonly #limits: SliceLimits;
  /** They take turns: a step ahead does not wait until the device has read the one before. */
  readonly #slices: readonly PinnedWords[];
  #turn = 0;
  #isClosed = false;

  /** Called once, after everything is freed. */
  whenClosed = (): void => {};

  constructor(model: CudaModel, cache: CudaCache) {
    const { cuda, stream, activations } = model;
    const { info, pool } = cache;
    this.info = info;
    this.pool = pool;
    this.maxRows = activations.maxRows;
    this.#model = model;
    this.#cache = cache;
    this.#limits = {
      maxRows: this.maxRows,
      maxModelLen: info.maxModelLen,
      blockSize: info.layout.blockSize,
      numBlocks: info.numBlocks,
      vocabSize: info.vocabSize,
    };
    this.#slices = [0, 1].map(() => new PinnedWords(cuda, stream, sliceWords(this.#limits)));
    this.head = new CudaLogitsHead(model);
  }

  swap(swapOut: Int32Array, swapIn: Int32Array): void {
    if (this.#isClosed) throw new Error("the executor is closed");
    // A step begins here; other executors of the thread may be on other devices.
    this.#model.cuda.setDevice(this.pool.ordinal);
    this.#cache.swap.submit(swapOut, swapIn, this.#model.stream);
  }

  forward(input: StepInput, slice: Slice): void {
    const { kernels, config, weights, activations, promptProducts } = this.#model;
    const { graphs } = this.#cache;
    const libraryRows = promptProducts?.rowsOf(input, slice) ?? [];
    const room = libraryRows.length > 0 ? undefined : graphs?.roomFor(slice) ?? undefined;
    const { rows, tokens, sources, tables } = this.#upload(input, slice, room);
    if (input.isAhead) this.#model.chooser!.takeTokens(sources, tokens, rows);
    const enqueue = () => {
      kernels.embed(weights.embedding, tokens, activations.residual, rows, config.hiddenSize);
      weights.layers.forEach((layer, index) => this.#layer(layer, index, tables));
    };
    kernels.computeByLibrary(libraryRows);
    if (room === undefined) enqueue();
    else graphs!.run(room, enqueue);
    kernels.computeByLibrary([]);
  }

  finish(): void {
    this.#model.cuda.synchronizeStream(this.#model.stream);
  }

  close(): void {
    if (this.#isClosed) return;
    const { cuda, stream, kernels, memory } = this.#model;
    try {
      this.closeCache();
      this.#model.chooser?.close();
      kernels.close();
      memory.free();
      cuda.destroyStream(stream);
    } catch (error) {
      if (!(error instanceof CudaError)) throw error; // of a device that has failed, all is lost
    }
    this.whenClosed();
  }

  /** Frees the cache, and leaves the model for another one. The pool's copies have ended. */
  closeCache(): void {
    this.#isClosed = true;
    const { cuda, stream } = this.#model;
    cuda.synchronizeStream(stream);
    this.#cache.graphs?.close();
    for (const words of this.#slices) words.close();
    this.head.close();
    cuda.free(this.pool.address);
    if (this.#cache.swapAddress !== 0n) cuda.hostFree(this.#cache.swapAddress);
  }

  #layer(layer: CudaLayer, index: number, tables: RowTables): void {
    const { kernels, config, weights, activations } = this.#model;
    const { residual, normed, qkv, attended, gateUp, activated } = activations;
    const { rows } = tables;
    const rowsAfter = (norm: bigint) => ({
      ...{ x: residual, norm, indices: 0n, rows, epsilon: config.rmsNormEps },
    });
    kernels.normLinear(rowsAfter(layer.inputNorm), layer.qkv, qkv, normed);
    kernels.attention(
      qkv,
      layer.headNorms,
      weights.ropeTable,
      tables,
      this.#cacheOf(index),
      attended,
      { window: config.slidingWindow ?? 0, ...activations },
    );
    kernels.linearAdd(layer.output, attended, residual, rows);
    kernels.normGateUp(
      rowsAfter(layer.postAttentionNorm),
      layer.gateUp,
      activated,
      normed,
      gateUp,
    );
    kernels.linearAdd(layer.down, activated, residual, rows);
  }

  #cacheOf(layer: number): CacheLayer {
    const { layout } = this.info;
    return {
      address: this.pool.address + BigInt(layer * layerBytes(layout)),
      blockStride: blockBytes(layout) / elementBytes[layout.dtype],
      blockShift: Math.log2(layout.blockSize),
    };
  }

  /** Copies what the slice says of its rows to the device. */
  #upload(
    input: StepInput,
    slice: Slice,
    room: SliceRoom | undefined,
  ): { rows: number; tokens: bigint; sources: bigint; tables: RowTables } {
    const { activations } = this.#model;
    const staged = this.#slices[this.#turn];
    this.#turn = 1 - this.#turn;
    staged.wait();
    const arrays = writeSlice(staged.words, this.#limits, input, slice, room);
    const { numTokens: rows, blockTables, maxBlocks, maxContextLen } = arrays;
    staged.send(activations.slice, blockTables.byteOffset / 4 + blockTables.length);
    const at = (array: Int32Array) => activations.slice + BigInt(array.byteOffset);
    const tables = {
      rows,
      positions: at(arrays.positions),
      slots: at(arrays.slots),
      sequences: at(arrays.sequences),
      blockTables: at(blockTables),
      maxBlocks,
      starts: at(arrays.queryStarts),
      lengths: at(arrays.contextLens),
      numSequences: arrays.numSequences,
      mostRows: Math.max(...slice.map(({ numRows }) => numRows)),
      maxContextLen,
    };
    return { rows, tokens: at(arrays.tokenIds), sources: at(arrays.sources), tables };
  }
}
