import { CudaError } from "../../../ffi/cuda/errors.ts";
import {
  type CacheLayer,
  elementBytes,
  type RowTables,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import { blockBytes, type KvLayout, layerBytes, shardLayout } from "../../kv/layout.ts";
import type { DevicePool } from "../../kv/pool/pool.ts";
import type { ExecutorInfo, StepInput } from "../executor.ts";
import {
  type Slice,
  type SliceArrays,
  type SliceLimits,
  type SliceRoom,
  sliceWords,
  writeSlice,
} from "../transformer/slices.ts";
import type { Transformer } from "../transformer/transformer_executor.ts";
import { CudaLogitsHead } from "./cuda_logits_head.ts";
import type { CudaCache, CudaModel } from "./cuda_model.ts";
import { PinnedWords } from "./pinned_words.ts";
import type { CudaRank, Parts } from "./ranks.ts";

/** Where a rank has what its kernels read of a slice. */
interface Uploaded {
  readonly tokens: bigint;
  readonly sources: bigint;
  readonly tables: RowTables;
}

/** A model on its CUDA devices, driven from the calling thread. */
export class CudaTransformer implements Transformer {
  readonly info: ExecutorInfo;
  readonly pool: DevicePool;
  readonly maxRows: number;
  readonly head: CudaLogitsHead;
  readonly #model: CudaModel;
  readonly #cache: CudaCache;
  /** Of the blocks on one device. */
  readonly #layout: KvLayout;
  readonly #limits: SliceLimits;
  readonly #parts: {
    readonly residual: Parts;
    readonly attended: Parts;
    readonly activated: Parts;
  };
  /** Two for each rank, which take turns: a step ahead does not wait until the device has read the one before. */
  readonly #slices: (readonly [PinnedWords, PinnedWords])[] = [];
  #turn = 0;
  #isClosed = false;

  /** Called once, after everything is freed. */
  whenClosed = (): void => {};

  constructor(model: CudaModel, cache: CudaCache) {
    const { cuda, ranks } = model;
    const { info, pool } = cache;
    this.info = info;
    this.pool = pool;
    this.maxRows = ranks.first.activations.maxRows;
    this.#model = model;
    this.#cache = cache;
    this.#layout = shardLayout(info.layout);
    this.#parts = partsOf(model, elementBytes[ranks.first.kernels.type]);
    this.#limits = {
      maxRows: this.maxRows,
      maxModelLen: info.maxModelLen,
      blockSize: info.layout.blockSize,
      numBlocks: info.numBlocks,
      vocabSize: info.vocabSize,
    };
    const words = (stream: bigint) => new PinnedWords(cuda, stream, sliceWords(this.#limits));
    ranks.each(({ stream }) => this.#slices.push([words(stream), words(stream)]));
    this.head = new CudaLogitsHead(model);
  }

  swap(swapOut: Int32Array, swapIn: Int32Array): void {
    if (this.#isClosed) throw new Error("the executor is closed");
    const { cuda, ranks } = this.#model;
    // A step begins here; other executors of the thread may be on other devices.
    cuda.setDevice(ranks.first.ordinal);
    ranks.each(({ stream }, rank) => this.#cache.blocks[rank].swap.submit(swapOut, swapIn, stream));
  }

  forward(input: StepInput, slice: Slice): void {
    const { ranks, promptProducts, chooser } = this.#model;
    const { graphs } = this.#cache;
    const libraryRows = promptProducts?.rowsOf(input, slice) ?? [];
    const room = libraryRows.length > 0 ? undefined : graphs?.roomFor(slice) ?? undefined;
    const uploaded = this.#upload(input, slice, room);
    let tokensOf = (rank: CudaRank) => uploaded[ranks.all.indexOf(rank)].tokens;
    if (input.isAhead) {
      const [{ sources, tokens, tables: { rows } }] = uploaded;
      this.#model.cuda.setDevice(ranks.first.ordinal);
      chooser!.takeTokens(sources, tokens, rows);
      tokensOf = ranks.share(tokensOf, rows);
    }
    const { kernels } = ranks.first;
    kernels.computeByLibrary(libraryRows);
    const enqueue = () => this.#enqueue(uploaded.map(({ tables }) => tables), tokensOf);
    if (room === undefined) enqueue();
    else graphs!.run(room, enqueue);
    kernels.computeByLibrary([]);
  }

  finish(): void {
    this.#model.ranks.synchronize();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    const { cuda, ranks, chooser } = this.#model;
    try {
      this.closeCache();
      chooser?.close();
      await ranks.close();
      ranks.each(({ kernels, memory, stream }) => {
        kernels.close();
        memory.free();
        cuda.destroyStream(stream);
      });
    } catch (error) {
      if (!(error instanceof CudaError)) throw error; // of a device that has failed, all is lost
    }
    this.whenClosed();
  }

  /** Frees the cache, and leaves the model for another one. The pool's copies have ended. */
  closeCache(): void {
    this.#isClosed = true;
    const { cuda, ranks } = this.#model;
    ranks.synchronize();
    this.#cache.graphs?.close();
    for (const words of this.#slices.flat()) words.close();
    this.head.close();
    for (const { address, swapAddress } of this.#cache.blocks) {
      cuda.free(address);
      if (swapAddress !== 0n) cuda.hostFree(swapAddress);
    }
  }

  /** Puts all launches of a slice on the streams. */
  #enqueue(tables: readonly RowTables[], tokensOf: (rank: CudaRank) => bigint): void {
    const { config, ranks } = this.#model;
    const { rows } = tables[0], { residual, attended, activated } = this.#parts;
    ranks.each((rank) => {
      const { kernels, weights, activations } = rank;
      kernels.embed(
        weights.embedding,
        tokensOf(rank),
        activations.residual,
        rows,
        config.hiddenSize,
      );
    });
    ranks.cut(residual, rows);
    for (let layer = 0; layer < config.numLayers; layer++) {
      ranks.each((rank, index) =>
        this.#attend(rank, layer, tables[index], this.#cacheOf(index, layer))
      );
      ranks.gather(attended, rows);
      ranks.each(({ kernels, weights, activations: { allAttended, residualPart } }) => {
        kernels.linearAdd(weights.layers[layer].output, allAttended, residualPart, rows);
      });
      ranks.gather(residual, rows);
      ranks.each((rank) => this.#activate(rank, layer, rows));
      ranks.gather(activated, rows);
      ranks.each(({ kernels, weights, activations: { allActivated, residualPart } }) => {
        kernels.linearAdd(weights.layers[layer].down, allActivated, residualPart, rows);
      });
      ranks.gather(residual, rows);
    }
  }

  /** Attention of a rank's heads. */
  #attend(
    { kernels, weights, activations }: CudaRank,
    layer: number,
    tables: RowTables,
    cache: CacheLayer,
  ): void {
    const { config } = this.#model;
    const { inputNorm, qkv: linear, headNorms } = weights.layers[layer];
    const { residual, normed, qkv, attended } = activations;
    const from = { ...this.#rowsOf(residual, tables.rows), norm: inputNorm };
    kernels.normLinear(from, linear, qkv, normed);
    const options = { window: config.slidingWindow ?? 0, ...activations };
    kernels.attention(qkv, headNorms, weights.ropeTable, tables, cache, attended, options);
  }

  /** A rank's part of the feed-forward layer. */
  #activate({ kernels, weights, activations }: CudaRank, layer: number, rows: number): void {
    const { postAttentionNorm, gateUp: linear } = weights.layers[layer];
    const { residual, normed, gateUp, activated } = activations;
    const from = { ...this.#rowsOf(residual, rows), norm: postAttentionNorm };
    kernels.normGateUp(from, linear, activated, normed, gateUp);
  }

  #rowsOf(x: bigint, rows: number) {
    return { x, indices: 0n, rows, epsilon: this.#model.config.rmsNormEps };
  }

  #cacheOf(rank: number, layer: number): CacheLayer {
    const layout = this.#layout;
    return {
      address: this.#cache.blocks[rank].address + BigInt(layer * layerBytes(layout)),
      blockStride: blockBytes(layout) / elementBytes[layout.dtype],
      blockShift: Math.log2(layout.blockSize),
    };
  }

  /** Copies what the slice says of its rows to the devices. */
  #upload(input: StepInput, slice: Slice, room: SliceRoom | undefined): Uploaded[] {
    const { ranks } = this.#model, turn = this.#turn;
    this.#turn = 1 - turn;
    for (const words of this.#slices) words[turn].wait();
    const { words } = this.#slices[0][turn];
    const arrays = writeSlice(words, this.#limits, input, slice, room);
    const { blockTables } = arrays;
    const used = blockTables.byteOffset / 4 + blockTables.length;
    return ranks.all.map(({ activations }, rank) => {
      const staged = this.#slices[rank][turn];
      if (rank > 0) staged.words.set(words.subarray(0, used));
      staged.send(activations.slice, used);
      return uploadedAt(activations.slice, arrays, slice);
    });
  }
}

/** What the ranks compute parts of. */
function partsOf({ config, ranks }: CudaModel, narrow: number) {
  const { hiddenSize, intermediateSize, numHeads, headDim } = config;
  const parts = (fullWidth: number) => ({ width: fullWidth / ranks.all.length, fullWidth });
  return {
    residual: {
      from: ({ activations }: CudaRank) => activations.residualPart,
      to: ({ activations }: CudaRank) => activations.residual,
      ...parts(hiddenSize * 4),
    },
    attended: {
      from: ({ activations }: CudaRank) => activations.attended,
      to: ({ activations }: CudaRank) => activations.allAttended,
      ...parts(numHeads * headDim * narrow),
    },
    activated: {
      from: ({ activations }: CudaRank) => activations.activated,
      to: ({ activations }: CudaRank) => activations.allActivated,
      ...parts(intermediateSize * narrow),
    },
  };
}

/** The addresses of a slice's arrays in a memory where they lie as the host has them. */
function uploadedAt(address: bigint, arrays: SliceArrays, slice: Slice): Uploaded {
  const at = (array: Int32Array) => address + BigInt(array.byteOffset);
  return {
    tokens: at(arrays.tokenIds),
    sources: at(arrays.sources),
    tables: {
      rows: arrays.numTokens,
      positions: at(arrays.positions),
      slots: at(arrays.slots),
      sequences: at(arrays.sequences),
      blockTables: at(arrays.blockTables),
      maxBlocks: arrays.maxBlocks,
      starts: at(arrays.queryStarts),
      lengths: at(arrays.contextLens),
      numSequences: arrays.numSequences,
      mostRows: Math.max(...slice.map(({ numRows }) => numRows)),
      maxContextLen: arrays.maxContextLen,
    },
  };
}
