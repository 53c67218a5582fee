/** What the software driver refuses, call by call, and its use from several threads. */
import assert from "node:assert/strict";
import { cString, nativeBuffer, textAt } from "../../../ffi/memory.ts";
import { deviceTest, directory, filled } from "./device.ts";
import type { WorkerOrder } from "./worker.ts";

const symbols = {
  cuCtxSetCurrent: { parameters: ["u64"], result: "i32" },
  cuCtxGetCurrent: { parameters: ["buffer"], result: "i32" },
  cuMemAlloc_v2: { parameters: ["buffer", "u64"], result: "i32" },
  memAllocElsewhere: {
    name: "cuMemAlloc_v2",
    parameters: ["buffer", "u64"],
    result: "i32",
    nonblocking: true,
  },
  cuStreamCreate: { parameters: ["buffer", "u32"], result: "i32" },
  cuStreamQuery: { parameters: ["u64"], result: "i32" },
  cuEventCreate: { parameters: ["buffer", "u32"], result: "i32" },
  cuEventQuery: { parameters: ["u64"], result: "i32" },
  cuCtxEnablePeerAccess: { parameters: ["u64", "u32"], result: "i32" },
  cuDevicePrimaryCtxRetain: { parameters: ["buffer", "i32"], result: "i32" },
  cuDeviceCanAccessPeer: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cuGetErrorName: { parameters: ["i32", "buffer"], result: "i32" },
  cuGetProcAddress_v2: {
    parameters: ["buffer", "buffer", "i32", "u64", "buffer"],
    result: "i32",
  },
  cuMemcpyBatchAsync_v2: {
    parameters: ["buffer", "buffer", "buffer", "u64", "buffer", "buffer", "u64", "u64"],
    result: "i32",
  },
  cuMemcpyHtoD_v2: { parameters: ["u64", "u64", "u64"], result: "i32" },
  cuMemcpyDtoD_v2: { parameters: ["u64", "u64", "u64"], result: "i32" },
  cuMemcpy2DAsync_v2: { parameters: ["buffer", "u64"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

const call = () => Deno.dlopen(`${directory}libcuda.so.1`, symbols).symbols;
const out = () => new BigUint64Array(1);

deviceTest("a thread without a context is refused", "", async () => {
  const elsewhere = await call().memAllocElsewhere(nativeBuffer(8), 64n);
  assert.equal(elsewhere, 201);
  const current = out();
  call().cuCtxGetCurrent(current);
  call().cuCtxSetCurrent(0n);
  assert.equal(call().cuMemAlloc_v2(out(), 64n), 201);
  assert.equal(call().cuCtxSetCurrent(12345n), 201);
  call().cuCtxSetCurrent(current[0]);
  assert.equal(call().cuMemAlloc_v2(out(), 64n), 0);
});

deviceTest("a handle of one kind is not taken for another", "", () => {
  const stream = out(), event = out();
  call().cuStreamCreate(stream, 1);
  call().cuEventCreate(event, 2);
  assert.equal(call().cuStreamQuery(stream[0]), 0);
  assert.equal(call().cuStreamQuery(event[0]), 400);
  assert.equal(call().cuEventQuery(stream[0]), 400);
  assert.equal(call().cuEventCreate(event, 4), 1, "an event between processes has no time");
});

deviceTest("peer access is switched on once", "", () => {
  const peer = out(), own = out(), can = new Int32Array(1);
  call().cuDevicePrimaryCtxRetain(own, 0);
  call().cuDevicePrimaryCtxRetain(peer, 1);
  call().cuDeviceCanAccessPeer(can, 0, 1);
  assert.equal(can[0], 1);
  call().cuDeviceCanAccessPeer(can, 0, 0);
  assert.equal(can[0], 0);
  assert.equal(call().cuCtxEnablePeerAccess(peer[0], 0), 0);
  assert.equal(call().cuCtxEnablePeerAccess(peer[0], 0), 704);
  assert.equal(call().cuCtxEnablePeerAccess(own[0], 0), 101);
});

deviceTest("codes have the names of cuda.h", "", () => {
  const name = out();
  const nameOf = (code: number) => {
    assert.equal(call().cuGetErrorName(code, name), 0);
    return textAt(Deno.UnsafePointer.create(name[0]));
  };
  assert.equal(nameOf(700), "CUDA_ERROR_ILLEGAL_ADDRESS");
  assert.equal(nameOf(201), "CUDA_ERROR_INVALID_CONTEXT");
  assert.equal(call().cuGetErrorName(12345, name), 1);
});

deviceTest("functions are found by their plain names", "", () => {
  const address = out(), status = new Int32Array(1);
  const find = (name: string) =>
    call().cuGetProcAddress_v2(cString(name), address, 13000, 0n, status);
  assert.equal(find("cuMemAlloc"), 0);
  assert.notEqual(address[0], 0n);
  assert.equal(find("cuMemNothing"), 500);
});

deviceTest("a batch that lets its source be read at any time gets it at once", "", (bench) => {
  const { cuda, device, read } = bench;
  const stream = cuda.createStream();
  const outcome = (order: number): number => {
    const from = device(filled(64, 1)), to = cuda.malloc(64);
    const attributes = new Uint32Array([order, 0, 0, 0, 0, 0]);
    cuda.memset(from, 2, 64, stream);
    const all = (value: bigint) => new BigUint64Array([value]);
    const code = call().cuMemcpyBatchAsync_v2(
      ...[all(to), all(from), all(64n), 1n] as const,
      ...[attributes, all(0n), 1n, stream] as const,
    );
    if (code !== 0) return -code;
    cuda.synchronizeStream(stream);
    return read(to, 64)[0];
  };
  assert.equal(outcome(1), 2);
  assert.equal(outcome(3), 1);
  assert.equal(outcome(0), -1);
});

deviceTest(
  "a copy without a stream waits for the host's memory, not for the device's",
  "",
  (bench) => {
    const { device, host, read, cuda } = bench;
    const at = cuda.malloc(64), source = host(filled(64, 7)), to = device(filled(64, 1));
    assert.equal(call().cuMemcpyHtoD_v2(at, source.at, 64n), 0);
    source.bytes.fill(9);
    assert.equal(call().cuMemcpyDtoD_v2(to, at, 64n), 0);
    assert.deepEqual(read(to, 64), filled(64, 1));
    cuda.synchronizeStream(0n);
    assert.deepEqual(read(to, 64), filled(64, 7));
  },
);

deviceTest("rows are copied with their pitches", "", ({ cuda, device, read }) => {
  const from = device(new Uint8Array(64).map((_, i) => i)), to = device(filled(64, 0));
  const copy = new BigUint64Array(16);
  // CUDA_MEMCPY2D: x, y, memory type (2: device), host, device, array, pitch, twice; width, height.
  copy.set([2n, 1n, 2n, 0n, from, 0n, 8n, 0n, 0n, 2n, 0n, to, 0n, 4n, 3n, 2n]);
  const stream = cuda.createStream();
  assert.equal(call().cuMemcpy2DAsync_v2(copy, stream), 0);
  cuda.synchronizeStream(stream);
  assert.deepEqual([...read(to, 8)], [10, 11, 12, 0, 18, 19, 20, 0]);
  copy[14] = 9n;
  assert.equal(call().cuMemcpy2DAsync_v2(copy, stream), 1, "wider than its pitch");
});

deviceTest("the legacy stream waits for blocking streams", "", ({ device, host, cuda }) => {
  const blocking = out();
  call().cuStreamCreate(blocking, 0);
  const at = device(filled(8, 1)), source = host(filled(8, 2)), seen = host(8);
  cuda.copy(at, source.at, 8, blocking[0]);
  cuda.copy(seen.at, at, 8, 0n);
  cuda.synchronizeStream(0n);
  assert.equal(seen.bytes[0], 2);
});

deviceTest(
  "threads use the device at the same time",
  "memory=64M,order=random",
  async ({ cuda, read }) => {
    const threads = 2, rounds = 150, byteLength = 4096;
    const pools = Array.from({ length: threads }, () => cuda.malloc(byteLength));
    const shared = cuda.createStream();
    const finished = pools.map((pool, thread) => {
      const worker = new Worker(import.meta.resolve("./worker.ts"), { type: "module" });
      const order: WorkerOrder = {
        directory: directory!,
        ...{ pool, shared, byteLength, rounds, value: thread + 1 },
      };
      return new Promise<string>((resolve) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => {
          event.preventDefault();
          resolve(event.message);
        };
        worker.postMessage(order);
      }).finally(() => worker.terminate());
    });
    assert.deepEqual(await Promise.all(finished), pools.map(() => "done"));
    cuda.synchronizeStream(shared);
    const expected = (thread: number) => filled(byteLength, (thread * rounds + rounds) % 256);
    pools.forEach((pool, thread) => {
      assert.deepEqual(read(pool, byteLength), expected(thread + 1));
    });
  },
);
