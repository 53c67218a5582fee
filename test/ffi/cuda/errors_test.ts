import assert from "node:assert/strict";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { openDriver } from "../../../ffi/cuda/driver.ts";
import {
  CudaError,
  deadContextCodes,
  DeviceBusyError,
  DeviceLostError,
  DriverTooOldError,
  NoDeviceError,
  NoDriverError,
  OutOfMemoryError,
} from "../../../ffi/cuda/errors.ts";
import { openCuda } from "../../../ffi/cuda/open.ts";
import { LibraryNotFoundError } from "../../../ffi/library.ts";
import { failing, fakeTest } from "../fake_library.ts";
import { fakeCudart, fakeLibcuda } from "./fake_cuda.ts";

/** A fake of each library, with a way to make one of its functions fail. */
async function fakes(directory: string) {
  const cudart = `${directory}/libcudart.so.13`, cuda = `${directory}/libcuda.so.1`;
  await fakeCudart(cudart, 13000, 13000);
  await fakeLibcuda(cuda);
  return [
    { cuda: openCudart({ from: directory }), fail: failing(cudart), malloc: "cudaMalloc" },
    { cuda: openDriver({ from: directory }), fail: failing(cuda), malloc: "cuMemAlloc_v2" },
  ];
}

/** The error of `run`. */
function errorOf(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  assert.fail("no error");
}

fakeTest(
  "each failure that a caller can act on has a class, in both libraries",
  async (directory) => {
    for (const { cuda, fail, malloc } of await fakes(directory)) {
      const failed = (code: number) => {
        fail(malloc, code);
        return errorOf(() => cuda.malloc(100));
      };
      assert.ok(failed(100) instanceof NoDeviceError);
      assert.match(failed(100).message, /CUDA_VISIBLE_DEVICES/);
      assert.ok(failed(46) instanceof DeviceBusyError);
      for (const code of Object.values(deadContextCodes)) {
        assert.ok(failed(code) instanceof DeviceLostError, String(code));
      }
      assert.match(failed(700).message, /context is dead for this process: end it/);
      assert.match(failed(34).message, /stub/);
      assert.match(failed(201).message, /setDevice on this thread/);
      const plain = failed(999);
      assert.equal(plain.constructor, CudaError);
      const { call, code, codeName, text } = plain as CudaError;
      assert.deepEqual([call, code], [malloc, 999]);
      assert.match(codeName, /fake/i);
      assert.equal(plain.message, `${malloc}: ${text} (${codeName}, 999)`);
      fail(malloc, 0);
      cuda.malloc(100);
    }
  },
);

fakeTest("out of memory says what was needed and what is free", async (directory) => {
  for (const { cuda, fail, malloc } of await fakes(directory)) {
    fail(malloc, 2);
    const error = errorOf(() => cuda.malloc(5 << 20));
    assert.ok(error instanceof OutOfMemoryError);
    assert.deepEqual(
      [error.kind, error.neededBytes, error.freeBytes, error.totalBytes],
      ["device", 5 << 20, 3 << 20, 8 << 20],
    );
    assert.match(
      error.message,
      /5\.00 MiB of device memory are needed, 3\.00 MiB are free of 8\.00 MiB/,
    );
  }
  for (const { cuda, fail } of await fakes(directory)) {
    const runtime = cuda.library.api === "runtime";
    fail(runtime ? "cudaHostAlloc" : "cuMemHostAlloc", 2);
    const error = errorOf(() => cuda.hostAlloc(5 << 20));
    assert.ok(error instanceof OutOfMemoryError);
    assert.equal(error.kind, "pinned host");
    assert.ok(error.freeBytes! > 0 && error.freeBytes! <= error.totalBytes!);
  }
});

fakeTest("a process that opens its own handle is told so", async (directory) => {
  for (const { cuda, fail } of await fakes(directory)) {
    const runtime = cuda.library.api === "runtime";
    fail(runtime ? "cudaIpcOpenMemHandle" : "cuIpcOpenMemHandle_v2", 201);
    const error = errorOf(() => cuda.openIpcMemHandle(new Uint8Array(64)));
    assert.match(error.message, /A process cannot open a handle that it exported itself/);
  }
});

fakeTest("no device is a count of 0, and an error for its use", async (directory) => {
  const [runtime, driver] = await fakes(directory);
  runtime.fail("cudaGetDeviceCount", 100);
  assert.equal(runtime.cuda.deviceCount(), 0);
  runtime.fail("cudaSetDevice", 100);
  assert.ok(errorOf(() => runtime.cuda.setDevice(0)) instanceof NoDeviceError);
  driver.fail("cuInit", 100);
  assert.equal(openDriver({ from: directory }).deviceCount(), 0);
  assert.ok(errorOf(() => openDriver({ from: directory }).setDevice(0)) instanceof NoDeviceError);
  driver.fail("cuInit", 803);
  assert.match(errorOf(() => openDriver({ from: directory })).message, /restart the host/);
});

fakeTest("a driver that is too old is named with both versions", async (directory) => {
  const path = `${directory}/libcudart.so.13`;
  await fakeCudart(path, 13000, 12040);
  failing(path)("cudaGetDeviceCount", 35);
  const error = errorOf(() => openCudart({ from: directory }));
  assert.ok(error instanceof DriverTooOldError);
  assert.deepEqual([error.driverVersion, error.libraryVersion], [12040, 13000]);
  assert.match(error.message, /The driver knows CUDA 12\.4, the library is of CUDA 13\.0/);
  // Without libcuda there is nothing else to try.
  assert.ok(errorOf(() => openCuda({ from: directory })) instanceof DriverTooOldError);
  // libcuda itself serves whatever its version.
  await fakeLibcuda(`${directory}/libcuda.so.1`, { driver: 12040 });
  assert.equal(openCuda({ from: directory }).library.api, "driver");
  // An older libcudart that the driver knows is better still.
  await fakeCudart(`${directory}/libcudart.so.12`, 12040, 12040);
  const { api, version, path: taken } = openCuda({ from: directory }).library;
  assert.deepEqual([api, version, taken], ["runtime", 12040, `${directory}/libcudart.so.12`]);
});

fakeTest("no driver is no old driver", async (directory) => {
  const path = `${directory}/libcudart.so.12`;
  await fakeCudart(path, 12040, 0);
  failing(path)("cudaGetDeviceCount", 35);
  for (const open of [openCudart, openCuda]) {
    const error = errorOf(() => open({ from: directory }));
    assert.ok(error instanceof NoDriverError);
    assert.match(error.message, /no NVIDIA driver .* Seen: cudaGetDeviceCount: /);
  }
});

fakeTest("without any library the reason lists where both were searched", (directory) => {
  const error = errorOf(() => openCuda({ from: directory }));
  assert.ok(error instanceof NoDriverError);
  assert.match(error.message, /libcuda\.so\.1: .*\n[^]*libcudart\.so\.13: /);
  assert.ok(errorOf(() => openDriver({ from: directory })) instanceof LibraryNotFoundError);
});

fakeTest("libcudart comes first, and libcuda where there is none", async (directory) => {
  const api = (cuda: Cuda) => cuda.library.api;
  await fakeLibcuda(`${directory}/libcuda.so.1`);
  assert.equal(api(openCuda({ from: directory })), "driver");
  await fakeCudart(`${directory}/libcudart.so.12`, 12080, 13000);
  assert.equal(api(openCuda({ from: directory })), "runtime");
});
