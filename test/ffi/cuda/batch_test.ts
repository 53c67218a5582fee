/** Batched copies: two forms of one function by version, and none at all. */
import assert from "node:assert/strict";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { openDriver } from "../../../ffi/cuda/driver.ts";
import { failing, fakeTest, recorded } from "../fake_library.ts";
import { fakeCudart, fakeLibcuda } from "./fake_cuda.ts";

const addresses = BigUint64Array.of(0x1000n, 0x2000n, 0x3000n);
const sizes = BigUint64Array.of(8n, 16n, 24n);
const batch = (cuda: Cuda, stream = 0x77n) =>
  cuda.copyBatch(addresses, addresses, sizes, 3, stream);

/** Each form that a library can have, with the name of its function. */
async function forms(directory: string) {
  const made = [];
  for (const version of [12080, 13000]) {
    const from = `${directory}/runtime${version}`;
    await Deno.mkdir(from);
    const path = `${from}/libcudart.so.${Math.floor(version / 1000)}`;
    await fakeCudart(path, version, 13000);
    made.push({ name: "cudaMemcpyBatchAsync", path, open: () => openCudart({ from }) });
  }
  for (const batched of ["old", "new"] as const) {
    const from = `${directory}/driver-${batched}`;
    await Deno.mkdir(from);
    const path = `${from}/libcuda.so.1`;
    await fakeLibcuda(path, { batched });
    const name = batched === "old" ? "cuMemcpyBatchAsync" : "cuMemcpyBatchAsync_v2";
    made.push({ name, path, open: () => openDriver({ from }) });
  }
  return made;
}

fakeTest(
  "each form gets the stream where it expects it, and reads in its order",
  async (directory) => {
    for (const { path, open } of await forms(directory)) {
      batch(open());
      assert.equal(recorded(path, "batches"), 1n, path);
      assert.equal(recorded(path, "batch_count"), 3n);
      assert.equal(recorded(path, "batch_stream"), 0x77n, path);
      assert.equal(
        recorded(path, "batch_order"),
        1n,
        "sources are read in the order of the stream",
      );
      assert.equal(recorded(path, "singles"), 0n);
    }
  },
);

fakeTest(
  "a batch that the driver does not know becomes single copies, for good",
  async (directory) => {
    for (const { name, path, open } of await forms(directory)) {
      const cuda = open(), fail = failing(path);
      fail(name, 36);
      batch(cuda);
      assert.equal(recorded(path, "singles"), 3n, path);
      fail(name, 0);
      batch(cuda);
      assert.equal(recorded(path, "singles"), 6n);
      assert.equal(recorded(path, "batches"), 0n);
    }
  },
);

fakeTest("a batch that fails is an error, not single copies", async (directory) => {
  for (const { name, path, open } of await forms(directory)) {
    const cuda = open();
    failing(path)(name, 1);
    assert.throws(() => batch(cuda), /\b1\)/);
    assert.equal(recorded(path, "singles"), 0n);
  }
});

fakeTest("the default stream, which takes no batch, gets single copies", async (directory) => {
  for (const { path, open } of await forms(directory)) {
    batch(open(), 0n);
    assert.equal(recorded(path, "singles"), 3n);
    assert.equal(recorded(path, "batches"), 0n);
  }
});
