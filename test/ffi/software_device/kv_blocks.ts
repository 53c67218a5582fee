/** The kernels of kv.cu on blocks of a test, and what they have to do. */
import assert from "node:assert/strict";
import { KvKernels, type PatternBlocks } from "../../../ffi/cuda_kernels/kv.ts";
import { type Bench, directory, filled } from "./device.ts";

export class KvBlocks {
  readonly stream: bigint;
  readonly #kernels: KvKernels;

  constructor(readonly bench: Bench, readonly byteLength: number, threads = 64) {
    this.stream = bench.cuda.createStream();
    this.#kernels = KvKernels.open({ from: directory!, threads });
  }

  allocate(count: number): bigint[] {
    return Array.from({ length: count }, () => this.bench.cuda.malloc(this.byteLength));
  }

  table(values: readonly bigint[]): bigint {
    return this.bench.device(new Uint8Array(BigUint64Array.from(values).buffer));
  }

  #pattern(blocks: readonly bigint[], keys: readonly bigint[]): PatternBlocks {
    const { byteLength } = this;
    const addresses = this.table(blocks);
    return { addresses, keys: this.table(keys), blocks: blocks.length, byteLength };
  }

  fill(blocks: readonly bigint[], keys: readonly bigint[]): void {
    this.#kernels.fill(this.#pattern(blocks, keys), this.stream);
  }

  copy(to: readonly bigint[], from: readonly bigint[], byteLengths: readonly number[]): void {
    const tables = {
      destinations: this.table(to),
      sources: this.table(from),
      byteLengths: this.bench.device(new Uint8Array(Uint32Array.from(byteLengths).buffer)),
    };
    this.#kernels.copy(tables, to.length, Math.max(...byteLengths), this.stream);
  }

  /** For each block how many vectors of its pattern are wrong, and the first of them. */
  check(blocks: readonly bigint[], keys: readonly bigint[]): [wrong: number, first: number][] {
    const { bench, stream } = this;
    const wrong = bench.device(filled(blocks.length * 4, 0));
    const first = bench.device(filled(blocks.length * 4, 0xff));
    this.#kernels.check(this.#pattern(blocks, keys), wrong, first, stream);
    bench.cuda.synchronizeStream(stream);
    const read = (at: bigint) => new Uint32Array(bench.read(at, blocks.length * 4).buffer);
    const firsts = read(first);
    return [...read(wrong)].map((count, i) => [count, firsts[i]]);
  }

  close(): void {
    this.#kernels.close();
  }
}

export const keys = [1n << 32n | 5n, 2n << 32n | 5n, 7n];
/** What `check` answers for blocks of these keys that are right. */
export const right: [number, number][] = keys.map(() => [0, 0xffffffff]);

/** Fills, copies and checks blocks; the same at every seed and for shapes with remainders. */
export function fillCopyCheck(bench: Bench, byteLength: number, threads: number): void {
  const kv = new KvBlocks(bench, byteLength, threads);
  const blocks = kv.allocate(3), copies = kv.allocate(3);
  kv.fill(blocks, keys);
  assert.deepEqual(kv.check(blocks, keys), right);
  // The last vector of the third block is not copied: it stays NaN.
  kv.copy(copies, blocks, [byteLength, byteLength, byteLength - 16]);
  const last: [number, number] = [1, byteLength / 16 - 1];
  assert.deepEqual(kv.check(copies, keys), [right[0], right[1], last]);
  const wrongKey = kv.check(blocks, [keys[0], keys[0], keys[2]]);
  assert.deepEqual(wrongKey, [right[0], [byteLength / 16, 0], right[2]]);
  kv.close();
}
