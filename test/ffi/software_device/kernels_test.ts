/** The project's kernels, compiled for the CPU, by the very calls that launch them on a GPU. */
import assert from "node:assert/strict";
import { CudaError, DeviceLostError } from "../../../ffi/cuda/errors.ts";
import { GraphDriver } from "../../../ffi/cuda/graphs.ts";
import { type Kernel, KernelDriver, type ParameterType } from "../../../ffi/cuda/kernels.ts";
import kvPtx from "../../../ffi/cuda_kernels/kv.ptx" with { type: "text" };
import { hashInPtx, kernelModules, sourceHash } from "../../../scripts/build_cuda_kernels.ts";
import { type Bench, configure, deviceTest, directory, filled } from "./device.ts";
import { takeRaces } from "./races.ts";

Deno.test("CUDA kernels: the committed PTX is of the committed source", async () => {
  assert(kernelModules().length > 0);
  for (const module of kernelModules()) assert.equal(hashInPtx(module), await sourceHash(module));
});

const parameters = {
  kv_copy: ["pointer", "pointer", "pointer", "u32"],
  kv_fill: ["pointer", "pointer", "u32", "u32"],
  kv_check: ["pointer", "pointer", "u32", "u32", "pointer", "pointer"],
} as const satisfies Record<string, readonly ParameterType[]>;

/** The kernels of kv.cu, and blocks of `byteLength` bytes to run them on. */
class KvBlocks {
  readonly stream: bigint;
  readonly #kernels: Record<keyof typeof parameters, Kernel>;

  constructor(readonly bench: Bench, readonly byteLength: number, readonly threads = 64) {
    this.stream = bench.cuda.createStream();
    const driver = KernelDriver.open({ from: directory! });
    const module = driver.loadModule(kvPtx);
    const kernel = (name: keyof typeof parameters) => driver.kernel(module, name, parameters[name]);
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

  #launch(name: keyof typeof parameters, count: number, values: (bigint | number)[]): void {
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

const keys = [1n << 32n | 5n, 2n << 32n | 5n, 7n];
const right: [number, number][] = keys.map(() => [0, 0xffffffff]);

/** Fills, copies and checks blocks; the same at every seed and for shapes with remainders. */
function fillCopyCheck(bench: Bench, byteLength: number, threads: number): void {
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

deviceTest("kv kernels fill, copy and check blocks at every seed", "", (bench) => {
  for (let seed = 1; seed <= 4; seed++) {
    configure(`seed=${seed}`);
    fillCopyCheck(bench, 8192 + 16, 64);
    fillCopyCheck(bench, 2048, 96);
  }
});

deviceTest("kv kernels have no race", "kernels=checked", (bench) => {
  for (let seed = 1; seed <= 3; seed++) {
    configure(`seed=${seed}`);
    fillCopyCheck(bench, 4096 + 16, 64);
  }
  assert.deepEqual(takeRaces("checked"), []);
});

deviceTest("a kernel waits in its stream like a copy", "", (bench) => {
  const kv = new KvBlocks(bench, 2048);
  const blocks = kv.allocate(3);
  kv.fill(blocks, keys);
  assert.deepEqual(bench.read(blocks[0], 2048), filled(2048, 0xff));
  bench.cuda.synchronizeStream(kv.stream);
  assert.notDeepEqual(bench.read(blocks[0], 2048), filled(2048, 0xff));
});

deviceTest("a kernel that leaves its memory ends in error 700, not in a crash", "", (bench) => {
  const kv = new KvBlocks(bench, 4096);
  const [small] = [bench.cuda.malloc(2048)];
  kv.fill([small], [1n]);
  const is700 = (error: Error) => error instanceof DeviceLostError && error.code === 700;
  assert.throws(() => bench.cuda.synchronizeStream(kv.stream), is700);
});

deviceTest("a captured graph runs kernels and copies again and again", "", (bench) => {
  const { cuda, device } = bench;
  const kv = new KvBlocks(bench, 2048), graphs = GraphDriver.open({ from: directory! });
  const blocks = kv.allocate(3), copies = kv.allocate(3);
  const table = kv.table(blocks),
    keyTable = kv.table(keys),
    other = kv.table(keys.map((key) => key + 1n));
  const driver = KernelDriver.open({ from: directory! });
  const fill = driver.kernel(driver.loadModule(kvPtx), "kv_fill", parameters.kv_fill);
  const current = device(filled(24, 0));
  const graph = graphs.capture(kv.stream, () => {
    fill.launch({ grid: [3, 1, 1], block: [64, 1, 1], stream: kv.stream }, [
      table,
      current,
      2048,
      3,
    ]);
    blocks.forEach((block, i) => cuda.copy(copies[i], block, 2048, kv.stream));
  });
  assert.deepEqual(bench.read(copies[0], 16), filled(16, 0xff), "a capture runs nothing");
  for (const [now, expected] of [[keyTable, keys], [other, keys.map((key) => key + 1n)]] as const) {
    cuda.copy(current, now, 24, kv.stream);
    graphs.launch(graph, kv.stream);
    cuda.synchronizeStream(kv.stream);
    assert.deepEqual(kv.check(copies, expected), right);
  }
  graphs.destroy(graph);
});

deviceTest("what a capture forbids is refused", "", ({ cuda }) => {
  const graphs = GraphDriver.open({ from: directory! });
  const stream = cuda.createStream(), other = cuda.createStream(), event = cuda.createEvent();
  const refused = (code: number) => (error: Error) =>
    error instanceof CudaError && error.code === code;
  assert.throws(() => graphs.capture(stream, () => cuda.synchronizeStream(stream)), refused(900));
  assert.throws(() => graphs.capture(stream, () => cuda.malloc(64)), refused(900));
  const at = cuda.malloc(64);
  assert.throws(() =>
    graphs.capture(stream, () => {
      cuda.recordEvent(event, stream);
      cuda.waitEvent(other, event);
      cuda.memset(at, 1, 64, other);
    }), refused(904));
  cuda.recordEvent(event, other);
  assert.throws(() => graphs.capture(stream, () => cuda.waitEvent(stream, event)), refused(905));
});

deviceTest("a missing edge of a graph shows", "", (bench) => {
  const { cuda, read } = bench;
  const graphs = GraphDriver.open({ from: directory! });
  const first = cuda.createStream(), second = cuda.createStream();
  const outcome = (edge: boolean): number => {
    const at = cuda.malloc(64), to = cuda.malloc(64);
    const fork = cuda.createEvent(), handOver = cuda.createEvent(), join = cuda.createEvent();
    const graph = graphs.capture(first, () => {
      cuda.recordEvent(fork, first);
      cuda.waitEvent(second, fork);
      cuda.memset(at, 3, 64, first);
      cuda.recordEvent(handOver, first);
      if (edge) cuda.waitEvent(second, handOver);
      cuda.copy(to, at, 64, second);
      cuda.recordEvent(join, second);
      cuda.waitEvent(first, join);
    });
    graphs.launch(graph, first);
    cuda.synchronizeStream(first);
    return read(to, 64)[0];
  };
  assert.equal(outcome(true), 3);
  assert.equal(outcome(false), 0xff);
});
