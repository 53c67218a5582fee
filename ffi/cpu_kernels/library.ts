import { decoderMemory, writeBatch } from "./decoder.ts";
import {
  type AttentionBatch,
  type CpuKernels,
  type Decoder,
  type DecoderShape,
  type DecoderWeights,
  type KernelAddress,
  KernelError,
  type KernelSet,
  type KvCacheView,
  type PackedMatrix,
  type StorageType,
} from "./kernels.ts";
import { storageBytes, storageCodes } from "./storage.ts";

/** `MAX_HEAD_DIM` of attention.h. */
const maxHeadDim = 256;
const blockSizes = [8, 16, 32];

const address = "u64", int = "i32", float = "f32", double = "f64", bytes = "u64";
const cache = [address, int, bytes, bytes, int, int, int] as const;

/** Signatures of the functions of kernels.c, the same for shared libraries and WASM. */
export const kernelSignatures = {
  kernels_open: { parameters: [int, address], result: address },
  kernels_close: { parameters: [address], result: "void" },
  memory_alloc: { parameters: [bytes], result: address },
  memory_free: { parameters: [address, bytes], result: "void" },
  memory_copy: { parameters: [address, address, bytes], result: "void" },
  memory_read: { parameters: [address, address, bytes], result: float },
  packed_bytes: { parameters: [int, int, int], result: bytes },
  pack_rows: { parameters: [address, int, address, address, int, int, int], result: "void" },
  gemm: {
    // handle, x, ldx, weights, type, n, k, bias, y, ldy, m, rounds, next, its bytes
    parameters: [
      ...[address, address, int, address, int, int] as const,
      ...[int, address, address, int, int, int] as const,
      ...[address, double] as const,
    ],
    result: int,
  },
  embed: { parameters: [address, address, int, int, address, address, int], result: "void" },
  rmsnorm: {
    parameters: [address, address, address, address, address, int, int, float],
    result: "void",
  },
  head_rmsnorm: {
    parameters: [address, address, int, address, int, int, int, float],
    result: "void",
  },
  rope: { parameters: [address, address, int, address, address, int, int, int], result: "void" },
  silu_mul: { parameters: [address, address, address, int, int], result: "void" },
  argmax: { parameters: [address, address, int, address, int, int], result: int },
  kv_write: {
    parameters: [address, ...cache, address, address, int, address, int],
    result: "void",
  },
  attention: {
    // handle, cache, q, ldq, out, ldo, heads, sequences, starts, lengths, tables, widths, scale
    parameters: [
      address,
      ...cache,
      ...[address, int, address, int, int, int] as const,
      ...[address, address, address, int, int, float] as const,
    ],
    result: int,
  },
  decoder_forward: { parameters: [address, address, address], result: int },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of kernels.c as JavaScript calls them. */
export type KernelSymbols = Deno.StaticForeignLibraryInterface<typeof kernelSignatures>;

/** The memory of a library: this process's, or a WASM instance's. */
export interface KernelMemory {
  bytes(address: KernelAddress, byteLength: number): Uint8Array;
  /** Calls `use` with the addresses at which the kernels can read the pieces of `rows`, in order. */
  eachReadable(
    rows: Uint8Array,
    rowBytes: number,
    use: (address: KernelAddress, rowCount: number) => void,
  ): void;
  /** Why an allocation of `byteLength` bytes may have failed, for the error message. */
  exhausted(byteLength: number): string;
  /** Ends the threads that `kernels_close` cannot end. */
  close(): void;
}

/** `CpuKernels` over the functions of one library. */
export class KernelLibrary implements CpuKernels {
  readonly #symbols: KernelSymbols;
  readonly #memory: KernelMemory;
  readonly #handle: KernelAddress;
  readonly #allocated = new Map<KernelAddress, number>();

  constructor(
    readonly name: KernelSet,
    readonly threads: number,
    handle: KernelAddress,
    symbols: KernelSymbols,
    memory: KernelMemory,
  ) {
    this.#handle = handle;
    this.#symbols = symbols;
    this.#memory = memory;
  }

  alloc(byteLength: number): KernelAddress {
    const found = this.#symbols.memory_alloc(BigInt(Math.max(byteLength, 1)));
    if (found === 0n) throw this.#outOfMemory(byteLength);
    this.#allocated.set(found, byteLength);
    return found;
  }

  free(address: KernelAddress, byteLength: number): void {
    if (this.#allocated.get(address) !== byteLength) {
      throw new KernelError(`free: there is no allocation of ${byteLength} bytes at ${address}`);
    }
    this.#allocated.delete(address);
    this.#symbols.memory_free(address, BigInt(Math.max(byteLength, 1)));
  }

  bytes(address: KernelAddress, byteLength: number): Uint8Array {
    return this.#memory.bytes(address, byteLength);
  }

  copy(destination: KernelAddress, source: KernelAddress, byteLength: number): void {
    this.#symbols.memory_copy(destination, source, BigInt(byteLength));
  }

  readMemory(address: KernelAddress, byteLength: number): number {
    return this.#symbols.memory_read(this.#handle, address, BigInt(byteLength));
  }

  packedBytes(type: StorageType, n: number, k: number): number {
    return Number(this.#symbols.packed_bytes(storageCodes[type], n, k));
  }

  pack(type: StorageType, rows: readonly Uint8Array[], n: number, k: number): PackedMatrix {
    const rowBytes = k * storageBytes[type];
    const given = rows.reduce((sum, piece) => sum + piece.byteLength, 0);
    if (k % 2 !== 0) throw new KernelError(`pack: k is ${k}, expected an even number`);
    if (given !== n * rowBytes || rows.some((piece) => piece.byteLength % rowBytes !== 0)) {
      throw new KernelError(
        `pack: a ${type} matrix [${n}, ${k}] has ${n * rowBytes} bytes in pieces of whole rows, ` +
          `but got ${given} bytes in pieces of ${rows.map((piece) => piece.byteLength).join(", ")}`,
      );
    }
    const byteLength = this.packedBytes(type, n, k);
    const packed = this.alloc(byteLength);
    const code = storageCodes[type];
    let row = 0;
    for (const piece of rows) {
      this.#memory.eachReadable(piece, rowBytes, (source, count) => {
        this.#symbols.pack_rows(this.#handle, code, source, packed, row, count, k);
        row += count;
      });
    }
    return { address: packed, type, n, k, byteLength };
  }

  gemm(
    x: KernelAddress,
    ldx: number,
    weights: PackedMatrix,
    bias: KernelAddress,
    y: KernelAddress,
    ldy: number,
    m: number,
    roundActivations: boolean,
    next?: PackedMatrix,
  ): void {
    const { address, type, n, k } = weights;
    const code = storageCodes[type], rounds = roundActivations ? 1 : 0;
    const done = this.#symbols.gemm(
      ...[this.#handle, x, ldx, address, code, n] as const,
      ...[k, bias, y, ldy, m, rounds] as const,
      ...[next?.address ?? 0n, next?.byteLength ?? 0] as const,
    );
    if (!done) throw this.#outOfMemory(m * k * 4);
  }

  embed(table: PackedMatrix, ids: KernelAddress, y: KernelAddress, m: number): void {
    const code = storageCodes[table.type];
    this.#symbols.embed(this.#handle, table.address, code, table.k, ids, y, m);
  }

  rmsnorm(
    x: KernelAddress,
    weight: KernelAddress,
    y: KernelAddress,
    m: number,
    k: number,
    eps: number,
  ): void {
    this.#symbols.rmsnorm(this.#handle, x, 0n, weight, y, m, k, eps);
  }

  addRmsnorm(
    x: KernelAddress,
    residual: KernelAddress,
    weight: KernelAddress,
    y: KernelAddress,
    m: number,
    k: number,
    eps: number,
  ): void {
    this.#symbols.rmsnorm(this.#handle, x, residual, weight, y, m, k, eps);
  }

  headRmsnorm(
    x: KernelAddress,
    ldx: number,
    weight: KernelAddress,
    m: number,
    heads: number,
    headDim: number,
    eps: number,
  ): void {
    this.#symbols.head_rmsnorm(this.#handle, x, ldx, weight, m, heads, headDim, eps);
  }

  rope(
    x: KernelAddress,
    ldx: number,
    positions: KernelAddress,
    table: KernelAddress,
    m: number,
    heads: number,
    headDim: number,
  ): void {
    this.#symbols.rope(this.#handle, x, ldx, positions, table, m, heads, headDim);
  }

  siluMul(gateUp: KernelAddress, y: KernelAddress, m: number, f: number): void {
    this.#symbols.silu_mul(this.#handle, gateUp, y, m, f);
  }

  kvWrite(
    cache: KvCacheView,
    layer: number,
    keys: KernelAddress,
    values: KernelAddress,
    ld: number,
    slots: KernelAddress,
    m: number,
  ): void {
    const view = cacheArguments(cache, layer);
    this.#symbols.kv_write(this.#handle, ...view, keys, values, ld, slots, m);
  }

  attention(
    cache: KvCacheView,
    layer: number,
    q: KernelAddress,
    ldq: number,
    out: KernelAddress,
    ldo: number,
    heads: number,
    batch: AttentionBatch,
    scale: number,
  ): void {
    if (heads % cache.numKvHeads !== 0) {
      throw new KernelError(`attention: ${heads} heads cannot share ${cache.numKvHeads} KV heads`);
    }
    const done = this.#symbols.attention(
      this.#handle,
      ...cacheArguments(cache, layer),
      ...[q, ldq, out, ldo, heads, batch.numSequences] as const,
      ...[batch.queryStarts, batch.contextLens, batch.blockTables] as const,
      ...[batch.maxBlocks, batch.maxContextLen, scale] as const,
    );
    if (!done) throw this.#outOfMemory(batch.maxContextLen * heads * cache.headDim);
  }

  argmax(x: KernelAddress, ldx: number, out: KernelAddress, m: number, k: number): void {
    const done = this.#symbols.argmax(this.#handle, x, ldx, out, m, k);
    if (!done) throw this.#outOfMemory(m * 8);
  }

  decoder(
    shape: DecoderShape,
    weights: DecoderWeights,
    cache: KvCacheView,
    maxRows: number,
  ): Decoder {
    cacheArguments(cache, 0);
    const memory = decoderMemory(this, shape, weights, cache, maxRows);
    return {
      forward: (batch) => {
        writeBatch(this, memory, batch);
        const { decoder, batch: batchAddress, hidden } = memory;
        const done = this.#symbols.decoder_forward(this.#handle, decoder, batchAddress);
        if (!done) throw this.#outOfMemory(batch.numTokens * shape.hiddenSize * 4);
        return hidden;
      },
    };
  }

  close(): void {
    for (const [address, byteLength] of this.#allocated) this.free(address, byteLength);
    this.#symbols.kernels_close(this.#handle);
    this.#memory.close();
  }

  #outOfMemory(byteLength: number): KernelError {
    return new KernelError(
      `no memory for ${byteLength} bytes: ${this.#memory.exhausted(byteLength)}`,
    );
  }
}

function cacheArguments(cache: KvCacheView, layer: number) {
  const { headDim, blockSize } = cache;
  if (headDim % 8 !== 0 || headDim > maxHeadDim) {
    throw new KernelError(
      `KV cache: head dimension ${headDim} is not a multiple of 8 up to ${maxHeadDim}`,
    );
  }
  if (!blockSizes.includes(blockSize)) {
    throw new KernelError(`KV cache: block size ${blockSize} is not one of ${blockSizes}`);
  }
  return [
    cache.address,
    storageCodes[cache.type],
    BigInt(cache.blockBytes),
    BigInt(layer * cache.layerBytes),
    cache.numKvHeads,
    headDim,
    blockSize,
  ] as const;
}
