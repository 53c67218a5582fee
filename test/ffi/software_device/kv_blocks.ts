/** The kernels of kv.cu on blocks of a test, and what they have to do. */
import assert from "node:assert/strict";
import { type Kernel, KernelDriver, type ParameterType } from "../../../ffi/cuda/kernels.ts";
import kvPtx from "../../../ffi/cuda_kernels/kv.ptx" with { type: "text" };
import { type Bench, directory, filled } from "./device.ts";

export const kvParameters = {
  kv_copy: ["pointer", "pointer", "pointer", "u32"],
  kv_fill: ["pointer", "pointer", "u32", "u32"],
  kv_check: ["pointer", "pointer", "u32", "u32", "pointer", "pointer"],
} as const satisfies Record<string, readonly ParameterType[]>;

/** The kernels of kv.cu, and blocks of `byteLength` bytes to run them on. */
export class KvBlocks {
  readonly stream: bigint;
  readonly #kernels: Record<keyof typeof kvParameters, Kernel>;

  constructor(readonly bench: Bench, readonly byteLength: number, readonly threads = 64) {
    this.stream = bench.cuda.createStream();
    const driver = KernelDriver.open({ from: directory! });
    const module = driver.loadModule(kvPtx);
    const kernel = (name: keyof typeof kvParameters) =>
      driver.kernel(module, name, kvParameters[name]);
    this.#kernels = {
      kv_copy: kernel("kv_copy"),
      kv_fill: kernel("kv_fill"),
      kv_check: kernel("kv_check"),
    };
  }

  allocate(count: number): bigint[] {
    return Array.from({ length: count }, () => this.bench.cuda.malloc(this.byteLength));
  }

  table(values: readonly bigint[]): bigint {
    return this.bench.device(new Uint8Array(BigUint64Array.from(values).buffer));
  }

  #launch(name: keyof typeof kvParameters, count: number, values: (bigint | number)[]): void {
    const launch = {
      grid: [count, 2, 1],
      block: [this.threads, 1, 1],
      stream: this.stream,
    } as const;
    this.#kernels[name].launch(launch, values);
  }

  fill(blocks: readonly bigint[], keys: readonly bigint[]): void {
    const values = [this.table(blocks), this.table(keys), this.byteLength, blocks.length];
    this.#launch("kv_fill", blocks.length, values);
  }

  copy(to: readonly bigint[], from: readonly bigint[], byteLengths: readonly number[]): void {
    const lengths = this.bench.device(new Uint8Array(Uint32Array.from(byteLengths).buffer));
    this.#launch("kv_copy", to.length, [this.table(to), this.table(from), lengths, to.length]);
  }

  /** For each block how many vectors of its pattern are wrong, and the first of them. */
  check(blocks: readonly bigint[], keys: readonly bigint[]): [wrong: number, first: number][] {
    const { bench, stream } = this;
    const wrong = bench.device(filled(blocks.length * 4, 0));
    const first = bench.device(filled(blocks.length * 4, 0xff));
    const values = [this.table(blocks), this.table(keys), this.byteLength, blocks.length];
    this.#launch("kv_check", blocks.length, [...values, wrong, first]);
    bench.cuda.synchronizeStream(stream);
    const read = (at: bigint) => new Uint32Array(bench.read(at, blocks.length * 4).buffer);
    const firsts = read(first);
    return [...read(wrong)].map((count, i) => [count, firsts[i]]);
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
}
