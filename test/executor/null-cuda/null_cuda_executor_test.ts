/** The null executor on a device pool, over the software device. */
import assert from "node:assert/strict";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { OutOfMemoryError } from "../../../ffi/cuda/errors.ts";
import { UsageError } from "../../../src/core/errors.ts";
import type { Executor, StepInput } from "../../../src/executor/executor.ts";
import { NullExecutor } from "../../../src/executor/null/null_executor.ts";
import { NullCudaExecutor } from "../../../src/executor/null-cuda/null_cuda_executor.ts";
import { layerBytes, layoutDifference } from "../../../src/kv/layout.ts";
import { readRuns, writeRuns } from "../../../src/kv/pool/copy_runs.ts";
import {
  allocateSwapBlocks,
  openCudaDevice,
  openOwnDevice,
  type OwnDevice,
} from "../../../src/kv/pool/cuda/cuda_device.ts";
import { testExecutor } from "../../conformance/executor.ts";
import { poolLayout } from "../../conformance/kv_pool.ts";
import { configure, counts, directory } from "../../ffi/software_device/device.ts";
import { engineOptions, samplingParams } from "../../instance/support.ts";

const settings =
  "devices=1,order=late,progress=20,fail-work=0,hang-work=0,busy=0,memory=1G,driver=13000";

function load(numGpuBlocksOverride = 128): NullCudaExecutor {
  configure(settings);
  const device = openOwnDevice("null-cuda", { from: directory! });
  const options = engineOptions({ device: "null-cuda", numGpuBlocksOverride });
  return new NullCudaExecutor(device, { device: "null-cuda", options, hostShare: 1 });
}

function deviceTest(name: string, fn: () => Promise<void> | void): void {
  const skipped = directory === null ? " (skipped: no C++ compiler for the software device)" : "";
  Deno.test({ name: `null-cuda executor: ${name}${skipped}`, ignore: directory === null, fn });
}

if (directory !== null) testExecutor("null-cuda executor", () => Promise.resolve(load()));
else deviceTest("passes the suite of executors", () => {});

deviceTest("takes a device that nobody has, and shares the first if all are taken", () => {
  configure(`${settings},devices=2,identity=${Deno.pid}`);
  const open = () => openOwnDevice("null-cuda", { from: directory! });
  const [first, second, third] = [open(), open(), open()];
  const taken = ({ ordinal, isShared }: OwnDevice) => [ordinal, isShared];
  assert.deepEqual([first, second, third].map(taken), [[0, false], [1, false], [0, true]]);
  second.release();
  const fourth = open();
  assert.deepEqual(taken(fourth), [1, false]);
  for (const device of [first, fourth]) device.release();
  configure(`${settings},identity=0`);
});

const promptTokenIds = Array.from({ length: 40 }, (_, i) => i);

/** A step of one sequence, in these blocks. */
function stepOf(
  stepId: number,
  start: number,
  end: number,
  blocks: readonly number[],
  changes: Partial<StepInput> = {},
): StepInput {
  return {
    stepId,
    kind: start === 0 ? "prefill" : "decode",
    removed: [],
    added: start === 0
      ? [{ handle: 0, params: samplingParams({ seed: 3 }), promptTokenIds, outputTokenIds: [] }]
      : [],
    swapOut: new Int32Array(),
    swapIn: new Int32Array(),
    handles: Int32Array.of(0),
    tokenIds: new Int32Array(end - start),
    queryStarts: Int32Array.of(0, end - start),
    contextLens: Int32Array.of(end),
    blockTables: Int32Array.from(blocks),
    maxBlocks: blocks.length,
    ...changes,
  };
}

async function failureOf(executor: Executor, input: StepInput): Promise<string | undefined> {
  const { failures } = await executor.step(input);
  return failures?.[0]?.message;
}

/** One run of the pool is overwritten by another. */
async function copyRun(
  { pool }: NullCudaExecutor,
  from: { block: number; firstLayer: number },
  to: { block: number; firstLayer: number },
): Promise<void> {
  await writeRuns(
    pool,
    [{ ...to, numLayers: 1 }],
    await readRuns(pool, [{ ...from, numLayers: 1 }]),
  );
}

deviceTest(
  "a block that another sequence's, place's or layer's contents overwrote is noticed",
  async () => {
    const wrong = [
      [
        { block: 7, firstLayer: 1 },
        { block: 5, firstLayer: 1 },
        /must hold position 0 in layer 1, and holds position 16, layer 1 of sequence [0-9a-f]{8}/,
      ],
      [
        { block: 5, firstLayer: 2 },
        { block: 5, firstLayer: 3 },
        /position 0 in layer 3, and holds position 0, layer 2/,
      ],
      [
        { block: 20, firstLayer: 0 },
        { block: 7, firstLayer: 0 },
        /position 16 in layer 0, and holds memory that nobody has written/,
      ],
    ] as const;
    for (const [from, to, message] of wrong) {
      const executor = load();
      assert.equal(await failureOf(executor, stepOf(1, 0, 40, [5, 7, 2])), undefined);
      assert.equal(await failureOf(executor, stepOf(2, 40, 41, [5, 7, 2])), undefined);
      await copyRun(executor, from, to);
      assert.match((await failureOf(executor, stepOf(3, 41, 42, [5, 7, 2])))!, message);
      await executor.close();
    }
  },
);

deviceTest(
  "one changed byte of an old token is noticed, and of a token to come is not",
  async () => {
    const executor = load();
    const run = [{ block: 2, firstLayer: 3, numLayers: 1 }];
    const tokenBytes = layerBytes(executor.info.layout) / executor.info.layout.blockSize;
    await executor.step(stepOf(1, 0, 40, [5, 7, 2])); // block 2 has the positions 32 to 39
    const flip = async (byte: number) => {
      const bytes = await readRuns(executor.pool, run);
      bytes[byte] ^= 1;
      await writeRuns(executor.pool, run, bytes);
    };
    await flip(9 * tokenBytes);
    assert.equal(await failureOf(executor, stepOf(2, 40, 41, [5, 7, 2])), undefined);
    await flip(8 * tokenBytes - 1);
    assert.match(
      (await failureOf(executor, stepOf(3, 41, 42, [5, 7, 2])))!,
      /position 39 in layer 3/,
    );
    await executor.close();
  },
);

deviceTest("swapped blocks that were lost meanwhile are noticed", async () => {
  const executor = load();
  await executor.step(stepOf(1, 0, 40, [5, 7, 2]));
  const swapOut = Int32Array.of(5, 0, 7, 1, 2, 2);
  await executor.step(stepOf(2, 40, 41, [5, 7, 2], { swapOut }));
  const right = stepOf(3, 40, 41, [8, 9, 10], { swapIn: Int32Array.of(0, 8, 1, 9, 2, 10) });
  assert.equal(await failureOf(executor, right), undefined);
  const mixed = stepOf(4, 40, 41, [8, 9, 10], { swapIn: Int32Array.of(1, 8, 0, 9, 2, 10) });
  assert.match((await failureOf(executor, mixed))!, /block 8 must hold position 0/);
  const twice = stepOf(5, 40, 41, [8, 9, 10], { swapIn: Int32Array.of(1, 8, 0, 8, 1, 9, 2, 10) });
  assert.equal(await failureOf(executor, twice), undefined, "pairs are copied in their order");
  const outside = stepOf(6, 40, 41, [8, 9, 10], { swapOut: Int32Array.of(128, 0) });
  await assert.rejects(executor.step(outside), RangeError);
  await executor.close();
});

deviceTest("its blocks move to no executor with another layout", async () => {
  const executor = load();
  const options = engineOptions({ blockSize: executor.info.layout.blockSize });
  const other = new NullExecutor({ device: "null", options, hostShare: 1 });
  const same = layoutDifference(executor.info.layout, executor.info.layout);
  assert.equal(same, null);
  assert.equal(
    layoutDifference(executor.info.layout, other.info.layout),
    "format is pattern here and k-transposed there",
  );
  await executor.close();
});

deviceTest("closed, it leaves nothing on the device or the host", async () => {
  await load().close(); // it opened the device's context
  const before = counts();
  const executor = load();
  await executor.step(stepOf(1, 0, 40, [5, 7, 2]));
  await executor.close();
  await executor.close();
  assert.deepEqual(counts(), before);
  await assert.rejects(executor.step(stepOf(2, 40, 41, [5, 7, 2])), /is closed/);
});

deviceTest("too little memory names what is needed, what is free, and what to lower", () => {
  configure(settings);
  const blocks = 2 * 2 ** 30 / (16 << 10);
  assert.throws(
    () => load(blocks),
    (error) =>
      error instanceof UsageError &&
      /^Cannot allocate the KV cache: 131072 blocks of 16 tokens need 2.00 GiB of device memory, and [01]\.\d\d GiB is free\. Lower --num-gpu-blocks-override\.$/
        .test(error.message),
  );
  assert.throws(() => load(0), { name: "UsageError", message: /expected 1 or more/ });
});

Deno.test("null-cuda executor: a swap pool that the host cannot lock names --swap-space", () => {
  const failure = { call: "cudaHostAlloc", code: 2, codeName: "", text: "out of memory" };
  const cuda = {
    hostAlloc(bytes: number) {
      throw new OutOfMemoryError(failure, "pinned host", bytes, 2 ** 30, 2 ** 31);
    },
  } as unknown as Cuda;
  const message = "Cannot allocate the swap pool: 128 blocks of 4 tokens need 0.25 MiB of pinned " +
    "host memory, and 1.00 GiB is free. Lower --swap-space.";
  assert.throws(() => allocateSwapBlocks(cuda, poolLayout, 128), { name: "UsageError", message });
});

deviceTest("no device and a busy device are the operator's to change", () => {
  const refusal = (changes: string, ordinal: number, message: RegExp) => {
    configure(`${settings},${changes}`);
    try {
      const open = () => openCudaDevice("null-cuda", ordinal, { from: directory! });
      assert.throws(open, { name: "UsageError", message });
    } finally {
      configure(settings);
    }
  };
  refusal("devices=0", 0, /needs an NVIDIA device: the driver shows 0.*CUDA_VISIBLE_DEVICES.*cpu/);
  refusal("devices=3", 3, /the driver shows 3, and device 3 was expected/);
  // This process holds device 0 already: one that nobody here has used is refused.
  refusal("devices=16,busy=1", 14, /null-cuda: .*Another process has the device for itself/);
});

Deno.test("null-cuda executor: without a driver it says what to install", () => {
  assert.throws(
    () => openCudaDevice("null-cuda", 0, { from: "/nowhere" }),
    { name: "UsageError", message: /^--device null-cuda: / },
  );
});
