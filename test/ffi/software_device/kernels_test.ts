/** The project's kernels, compiled for the CPU, by the very calls that launch them on a GPU. */
import assert from "node:assert/strict";
import { CudaError, DeviceLostError } from "../../../ffi/cuda/errors.ts";
import { GraphDriver } from "../../../ffi/cuda/graphs.ts";
import { KernelDriver } from "../../../ffi/cuda/kernels.ts";
import { KvKernels } from "../../../ffi/cuda_kernels/kv.ts";
import kvPtx from "../../../ffi/cuda_kernels/kv.ptx" with { type: "text" };
import {
  cubinHashes,
  hashInPtx,
  kernelModules,
  sourceHash,
} from "../../../scripts/build_cuda_kernels.ts";
import { configure, deviceTest, directory, filled } from "./device.ts";
import { fillCopyCheck, keys, KvBlocks, right } from "./kv_blocks.ts";
import { takeRaces } from "./races.ts";

Deno.test("CUDA kernels: the committed PTX is of the committed source", async () => {
  assert(kernelModules().length > 0);
  for (const module of kernelModules()) assert.equal(hashInPtx(module), await sourceHash(module));
});

Deno.test("CUDA kernels: each committed cubin was made with its PTX", async () => {
  for (const module of kernelModules()) {
    const { named, found } = await cubinHashes(module);
    assert.equal(found, named, module);
  }
});

deviceTest("kv kernels fill, copy and check blocks at every seed", "", (bench) => {
  for (let seed = 1; seed <= 4; seed++) {
    configure(`seed=${seed}`);
    fillCopyCheck(bench, 8192 + 16, 64);
    fillCopyCheck(bench, 2048, 96);
  }
});

deviceTest("kv kernels have no race", "kernels=checked", (bench) => {
  for (let seed = 1; seed <= 20; seed++) {
    configure(`seed=${seed}`);
    fillCopyCheck(bench, 4096 + 16, 64);
  }
  assert.deepEqual(takeRaces("checked"), []);
});

deviceTest("kv kernels refuse sizes that they cannot copy", "", (bench) => {
  const kernels = KvKernels.open({ from: directory! });
  const tables = { destinations: 0n, sources: 0n, byteLengths: 0n };
  const stream = bench.cuda.createStream();
  for (const [runs, bytes] of [[0, 16], [1, 8], [1, 0], [2 ** 31, 16], [1, 2 ** 32]]) {
    assert.throws(() => kernels.copy(tables, runs, bytes, stream), RangeError);
  }
  kernels.close();
  assert.throws(() => kernels.close(), CudaError);
  assert.throws(() => KvKernels.open({ from: directory!, threads: 33 }), RangeError);
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
  const fill = driver.kernel(driver.loadModule(kvPtx), "kv_fill", [
    "pointer",
    "pointer",
    "u32",
    "u32",
  ]);
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
