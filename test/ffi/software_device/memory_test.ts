/** Memory of the software device: poison, guards, limits, copies in batches, the faults of settings. */
import assert from "node:assert/strict";
import {
  CudaError,
  DeviceBusyError,
  DeviceLostError,
  OutOfMemoryError,
} from "../../../ffi/cuda/errors.ts";
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { openDriver } from "../../../ffi/cuda/driver.ts";
import { configure, counts, deviceTest, directory, filled, label } from "./device.ts";

const code = (expected: number) => (error: Error) =>
  error instanceof CudaError && error.code === expected;

deviceTest("it is labelled", "", ({ cuda }) => {
  assert.match(label(), /not a GPU/);
  assert(cuda.library.softwareDevice);
  assert.match(cuda.deviceInfo(0).name, /not a GPU/);
  assert.equal(cuda.deviceCount(), 2);
  assert.notEqual(cuda.deviceInfo(0).uuid, cuda.deviceInfo(1).uuid);
});

deviceTest("fresh memory is NaN in every float format", "", ({ cuda, read }) => {
  const bytes = read(cuda.malloc(1000), 1000);
  assert.deepEqual(bytes, filled(1000, 0xff));
  assert(Number.isNaN(new Float32Array(bytes.buffer, 0, 1)[0]));
  const pinned = cuda.hostAlloc(1000);
  assert.deepEqual(read(pinned, 1000), filled(1000, 0xff));
});

deviceTest("addresses outside an allocation are refused", "", ({ cuda, host }) => {
  const at = cuda.malloc(1000), stream = cuda.createStream(), { at: from } = host(4096);
  assert.equal(at % 256n, 0n);
  cuda.copy(at, from, 1000, stream);
  assert.throws(() => cuda.copy(at, from, 1001, stream), code(1));
  assert.throws(() => cuda.copy(at + 999n, from, 2, stream), code(1));
  assert.throws(() => cuda.copy(at - 1n, from, 2, stream), code(1));
  assert.throws(() => cuda.free(at + 256n), code(1));
  cuda.synchronizeStream(stream);
  cuda.free(at);
  assert.throws(() => cuda.free(at), code(1));
  assert.throws(() => cuda.copy(at, from, 8, stream), code(1));
});

deviceTest("an overrun into the bytes behind an allocation shows when it is freed", "", (bench) => {
  const { cuda } = bench;
  const at = cuda.hostAlloc(1000);
  const view = new Deno.UnsafePointerView(Deno.UnsafePointer.create(at)!);
  new Uint8Array(view.getArrayBuffer(1001))[1000] = 1;
  assert.throws(() => cuda.hostFree(at), DeviceLostError);
});

deviceTest("memory has a limit, and says what is free", "memory=1M", ({ cuda }) => {
  const half = cuda.malloc(512 << 10);
  assert.deepEqual(cuda.memGetInfo(), { freeBytes: 512 << 10, totalBytes: 1 << 20 });
  assert.throws(() => cuda.malloc((512 << 10) + 1), OutOfMemoryError);
  cuda.free(half);
  cuda.setDevice(1);
  const other = cuda.malloc(1 << 20);
  cuda.setDevice(0);
  cuda.free(cuda.malloc(1 << 20));
  cuda.free(other);
});

deviceTest("the n-th allocation fails, and large ones", "fail-allocation=2", ({ cuda }) => {
  cuda.malloc(64);
  assert.throws(() => cuda.malloc(64), OutOfMemoryError);
  cuda.malloc(64);
  configure("fail-allocation-above=1000");
  cuda.malloc(1000);
  assert.throws(() => cuda.malloc(1001), OutOfMemoryError);
});

deviceTest("the n-th work ends in error 700 for its device", "fail-work=2", ({ cuda }) => {
  const at = cuda.malloc(64), stream = cuda.createStream();
  cuda.memset(at, 1, 64, stream);
  cuda.synchronizeStream(stream);
  cuda.memset(at, 1, 64, stream);
  assert.equal(cuda.queryStream(stream), false);
  assert.throws(() => cuda.synchronizeStream(stream), code(700));
  assert.throws(() => cuda.checkDevice(), DeviceLostError);
});

deviceTest("work that never completes holds its stream, not the others", "hang-work=1", (bench) => {
  const { cuda } = bench;
  const at = cuda.malloc(64), stuck = cuda.createStream(), other = cuda.createStream();
  const event = cuda.createEvent();
  cuda.memset(at, 1, 64, stuck);
  cuda.recordEvent(event, stuck);
  cuda.memset(at, 2, 64, other);
  cuda.synchronizeStream(other);
  for (let i = 0; i < 50; i++) assert.equal(cuda.queryEvent(event), false);
  assert.equal(counts().work, 2);
});

deviceTest("a device that another process holds is busy", "busy=1", () => {
  const cuda = openDriver({ from: directory! });
  // This process may hold device 0 and 1 already: a device that nobody here has used is refused.
  configure("devices=16");
  assert.throws(() => cuda.setDevice(15), DeviceBusyError);
});

deviceTest(
  "pageable memory that is not there ends in error 700, not in a crash",
  "",
  ({ cuda }) => {
    const at = cuda.malloc(64), stream = cuda.createStream();
    cuda.copy(at, 4096n, 64, stream);
    assert.throws(() => cuda.synchronizeStream(stream), code(700));
  },
);

deviceTest("host memory is registered once", "", ({ cuda, host }) => {
  const { at } = host(8192);
  cuda.hostRegister(at, 8192);
  assert.throws(() => cuda.hostRegister(at + 4096n, 4096), code(712));
  assert.equal(cuda.hostDevicePointer(at), at);
  cuda.hostUnregister(at);
  assert.throws(() => cuda.hostUnregister(at), code(713));
  assert.throws(() => cuda.hostRegister(4096n, 64), code(1));
});

const batchForms = {
  "runtime 13, 8 arguments": () => openCudart({ from: `${directory}libcudart.so.13` }),
  "runtime 12, 9 arguments": () => openCudart({ from: `${directory}libcudart.so.12` }),
  "driver": () => openDriver({ from: directory! }),
};
for (const [form, open] of Object.entries(batchForms)) {
  deviceTest(`batched copies (${form})`, "", ({ device, read }) => {
    const cuda = open();
    cuda.setDevice(0);
    const contents = new Uint8Array(4096).map((_, i) => i % 251);
    const from = device(contents), to = cuda.malloc(4096), stream = cuda.createStream();
    const offsets = [0, 512, 3000, 1024];
    const addresses = (base: bigint) =>
      new BigUint64Array(offsets.map((offset) => base + BigInt(offset)));
    cuda.copyBatch(addresses(to), addresses(from), new BigUint64Array(4).fill(100n), 4, stream);
    assert.equal(read(to, 4096)[0], 0xff, "the batch has not run");
    cuda.synchronizeStream(stream);
    const bytes = read(to, 4096);
    for (const offset of offsets) {
      const run = [offset, offset + 100] as const;
      assert.deepEqual(bytes.slice(...run), contents.slice(...run));
    }
    assert.equal(bytes[200], 0xff);
  });
}

deviceTest("copies of a batch have no order among themselves", "", ({ cuda, device, read }) => {
  const values = new Set<number>();
  for (let seed = 1; seed <= 16; seed++) {
    configure(`seed=${seed}`);
    const ones = device(filled(64, 1)), twos = device(filled(64, 2)), to = cuda.malloc(64);
    const stream = cuda.createStream();
    const all = (...list: bigint[]) => new BigUint64Array(list);
    cuda.copyBatch(all(to, to), all(ones, twos), all(64n, 64n), 2, stream);
    cuda.synchronizeStream(stream);
    values.add(read(to, 64)[0]);
  }
  assert.deepEqual([...values].sort(), [1, 2]);
});

deviceTest("a driver that is too old is refused by the runtime", "driver=12080", () => {
  const versions = [13, 12].map((major) => {
    try {
      const cuda = openCudart({ from: `${directory}libcudart.so.${major}` });
      cuda.setDevice(0);
      return cuda.library.version;
    } catch (error) {
      return (error as Error).name;
    }
  });
  assert.deepEqual(versions, ["DriverTooOldError", 12090]);
});

deviceTest("without a device the driver comes up and finds none", "", () => {
  configure("devices=0");
  assert.equal(openDriver({ from: directory! }).deviceCount(), 0);
});

Deno.test("software device: unknown settings are refused", { ignore: directory === null }, () => {
  assert.throws(() => configure("memory=lots"));
  assert.throws(() => configure("colour=red"));
  assert.throws(() => configure("order=sometimes"));
  assert.throws(() => configure("devices=17"));
});
