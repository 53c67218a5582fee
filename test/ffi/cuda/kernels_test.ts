/** Modules and launches over a fake libcuda that records what it is given. */
import assert from "node:assert/strict";
import { CudaError, DeviceLostError } from "../../../ffi/cuda/errors.ts";
import { functionAttributes, KernelDriver } from "../../../ffi/cuda/kernels.ts";
import { failing, fakeTest, recorded } from "../fake_library.ts";
import { fakeLibcuda } from "./fake_cuda.ts";

const ptx = ".version 7.8";
const types = ["pointer", "i32", "f32", "u32"] as const;
const shape = { grid: [3, 2, 5], block: [32, 4, 1], stream: 9n } as const;

async function driver(directory: string) {
  const path = `${directory}/libcuda.so.1`;
  await fakeLibcuda(path);
  const record = (name: string) => recorded(path, name);
  return { driver: KernelDriver.open({ from: directory }), record, fail: failing(path) };
}

fakeTest("arguments lie where the kernel has its parameters", async (directory) => {
  const { driver: kernels, record } = await driver(directory);
  const kernel = kernels.kernel(kernels.loadModule(ptx), "scale", types);
  kernel.launch({ ...shape, sharedBytes: 4096 }, [0x123456789abcn, -2, 1.5, 0xffffffff]);
  assert.deepEqual(["grid_x", "grid_z", "block_y", "shared", "stream"].map(record), [
    ...[3n, 5n, 4n, 4096n, 9n],
  ]);
  assert.equal(record("pointer"), 0x123456789abcn);
  assert.equal(record("small"), 0xfffffffen);
  assert.equal(record("real"), 0x3fc00000n);
  assert.equal(record("argument_bytes"), 20n);
  assert.equal(record("attributes"), 0n);
  assert.throws(() => kernel.launch(shape, [0n, 1, 2]), /takes 4 parameters, not 3/);
});

fakeTest("attributes of a launch hold for that launch only", async (directory) => {
  const { driver: kernels, record } = await driver(directory);
  const kernel = kernels.kernel(kernels.loadModule(ptx), "scale", types);
  const values = [0n, 0, 0, 0];
  kernel.launch({ ...shape, programmatic: true }, values);
  assert.deepEqual([record("attributes"), record("first_attribute"), record("first_value")], [
    ...[1n, 6n, 1n],
  ]);
  kernel.launch({ ...shape, cluster: [2, 1, 1], cooperative: true }, values);
  assert.deepEqual(
    ["attributes", "first_attribute", "first_value", "second_attribute"].map(record),
    [2n, 4n, 2n, 2n],
  );
  kernel.launch(shape, values);
  assert.equal(record("attributes"), 0n);
});

fakeTest("a kernel with other parameters than the caller gives is refused", async (directory) => {
  const { driver: kernels } = await driver(directory);
  const module = kernels.loadModule(ptx);
  assert.throws(
    () => kernels.kernel(module, "scale", ["pointer", "pointer", "f32", "u32"]),
    /kernel scale has parameters at 0\+8 8\+4 12\+4 16\+4; the caller gives 0\+8 8\+8 16\+4 20\+4/,
  );
  assert.throws(() => kernels.kernel(module, "scale", types.slice(1)), RangeError);
  assert.throws(() => kernels.kernel(module, "other", types), (error) => {
    assert.ok(error instanceof CudaError);
    assert.match(error.message, /^cuModuleGetFunction\(other\): /);
    return true;
  });
});

fakeTest("a module that does not compile says what the compiler said", async (directory) => {
  const { driver: kernels } = await driver(directory);
  assert.throws(() => kernels.loadModule("nonsense"), (error) => {
    assert.ok(error instanceof CudaError);
    assert.equal(error.code, 218);
    assert.match(error.message, /ptxas: line 1: syntax error/);
    return true;
  });
});

fakeTest("a launch that fails names its kernel", async (directory) => {
  const { driver: kernels, fail } = await driver(directory);
  const kernel = kernels.kernel(kernels.loadModule(ptx), "scale", types);
  kernel.setAttribute(functionAttributes.maxDynamicSharedBytes, 100_000);
  fail("cuLaunchKernelEx", 700);
  assert.throws(() => kernel.launch(shape, [0n, 0, 0, 0]), (error) => {
    assert.ok(error instanceof DeviceLostError);
    assert.match(error.message, /^cuLaunchKernelEx\(scale\): /);
    return true;
  });
});
