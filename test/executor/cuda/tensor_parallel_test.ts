/** Models that are divided among devices: every bit is that of one device. */
import assert from "node:assert/strict";
import { openCuda } from "../../../ffi/cuda/open.ts";
import { LocalRanks } from "../../../ffi/nccl/local_ranks.ts";
import { NcclError } from "../../../ffi/nccl/nccl.ts";
import { openCommunicators } from "../../../src/executor/cuda/communicators.ts";
import { leaseDevices } from "../../../src/executor/cuda/device_lease.ts";
import type { Executor } from "../../../src/executor/executor.ts";
import { blockBytes, layerBytes } from "../../../src/kv/layout.ts";
import { readRuns, writeRuns } from "../../../src/kv/pool/copy_runs.ts";
import type { DevicePool } from "../../../src/kv/pool/pool.ts";
import { configure, counts, directory } from "../../ffi/software_device/device.ts";
import { withModel } from "../cpu/fixtures.ts";
import { Driver, randomPrompt, type TestSequence } from "../cpu/harness.ts";
import { cudaTest, load, type LoadOptions } from "./support.ts";

const OUTPUT_TOKENS = 5;
const prompts = [1, 15, 33].map((length, i) => randomPrompt(i, length, 256));
/** A vocabulary that ranks cannot divide, and biases wherever a family has them. */
const MODEL =
  "--family qwen2 --seed 11 --layers 2 --heads 4 --kv-heads 4 --head-dim 16 --hidden 64 --vocab 263";
const DEVICES = "devices=4";

function outcome(sequences: readonly TestSequence[]) {
  return sequences.map(({ output, logprobs }) => ({ output, logprobs }));
}

async function fresh<T>(
  options: LoadOptions,
  run: (executor: Executor, driver: Driver) => Promise<T>,
): Promise<T> {
  const executor = await load({ deviceSettings: DEVICES, hostShare: 1, ...options });
  try {
    return await run(executor, new Driver(executor, 7));
  } finally {
    await executor.close();
  }
}

/** Tokens and all logits of the prompts, in a batch; one is swapped out and in, and one is recomputed. */
function generate(options: LoadOptions) {
  return fresh(options, async (_, driver) => {
    const sequences = prompts.map((prompt) => driver.add(prompt, { logprobs: 263 }));
    await driver.prefill(...sequences);
    for (let i = 1; i < OUTPUT_TOKENS; i++) {
      if (i === 2) {
        driver.swapOut(sequences[1]);
        await driver.decode(sequences[0], sequences[2]);
        driver.swapIn(sequences[1]);
        await driver.decode(sequences[1]);
      } else if (i === 3) {
        driver.forget(sequences[2]);
        await driver.prefill(sequences[2]);
        await driver.decode(sequences[0], sequences[1]);
      } else {
        await driver.decode(...sequences);
      }
    }
    return outcome(sequences);
  });
}

for (
  const one of [
    { ranks: [2], dtype: "float32", quantization: null, kvCacheDtype: "auto" },
    { ranks: [2, 4], dtype: "bfloat16", quantization: null, kvCacheDtype: "auto" },
    { ranks: [2], dtype: "bfloat16", quantization: "fp8", kvCacheDtype: "fp8" },
  ] as const
) {
  const { ranks, ...type } = one;
  const name = `${type.dtype}${type.quantization === null ? "" : " and fp8"}`;
  cudaTest(`${ranks.join(" and ")} ranks compute the bits of one: ${name}`, async () => {
    await withModel(`${MODEL} --dtype f32`, async (model) => {
      const alone = await generate({ model, ...type });
      assert.ok(new Set(alone.flatMap(({ output }) => output)).size > 3, "outputs vary");
      for (const tensorParallelSize of ranks) {
        const found = await generate({ model, ...type, tensorParallelSize });
        assert.deepEqual(found, alone, `${tensorParallelSize} ranks`);
      }
    });
  });
}

cudaTest("a request goes on in another instance of two ranks with its bits", async () => {
  await withModel(`${MODEL} --tied --dtype f32`, async (model) => {
    const options = { model, dtype: "bfloat16", hostShare: 2 } as const;
    const alone = await fresh(options, async (_, driver) => {
      const sequence = driver.add(prompts[2], { logprobs: 263 });
      await driver.generate(sequence, OUTPUT_TOKENS);
      return outcome([sequence]);
    });
    const divided = { ...options, tensorParallelSize: 2, allowSharedDevice: false };
    const moved = await fresh(
      divided,
      (source, sourceDriver) =>
        fresh(divided, async (destination, driver) => {
          const leaving = sourceDriver.add(prompts[2], { logprobs: 263 });
          await sourceDriver.generate(leaving, 3);
          const arrived = driver.add(prompts[2], { logprobs: 263 });
          driver.arrive(arrived, leaving.output);
          arrived.logprobs.push(...leaving.logprobs);
          await moveBlocks(source, leaving.blocks, destination, arrived.blocks);
          while (arrived.output.length < OUTPUT_TOKENS) await driver.decode(arrived);
          return outcome([arrived]);
        }),
    );
    assert.deepEqual(moved, alone);
  });
});

/** Whole blocks are read, and written layer by layer: the bytes do not depend on how runs are cut. */
async function moveBlocks(
  source: Executor,
  from: readonly number[],
  destination: Executor,
  to: readonly number[],
): Promise<void> {
  const { layout } = source.info, { numLayers } = layout;
  assert.equal(layout.shards, 2);
  assert.equal(from.length, to.length);
  const whole = from.map((block) => ({ block, firstLayer: 0, numLayers }));
  const bytes = await readRuns(source.pool as DevicePool, whole);
  assert.equal(bytes.length, from.length * blockBytes(layout));
  const layers = to.flatMap((block) =>
    Array.from({ length: numLayers }, (_, firstLayer) => ({ block, firstLayer, numLayers: 1 }))
  );
  assert.equal(bytes.length, layers.length * layerBytes(layout));
  await writeRuns(destination.pool as DevicePool, layers, bytes);
}

cudaTest("the ranks' memory is free again, also after a load that failed", async () => {
  await withModel(MODEL, async (model) => {
    await fresh({ model }, () => Promise.resolve()); // what the process keeps
    const before = counts();
    await fresh({ model, tensorParallelSize: 2 }, async (_, driver) => {
      await driver.generate(driver.add(prompts[1]), 2);
    });
    assert.deepEqual(counts(), before);
    await assert.rejects(
      load({
        ...{ model, tensorParallelSize: 2, deviceSettings: `${DEVICES},memory=200M`, hostShare: 1 },
        numGpuBlocksOverride: 100_000,
      }),
      { name: "UsageError" },
    );
    assert.deepEqual(counts(), before);
  });
});

cudaTest(
  "communicators that cannot be ended hide no error, and keep no device and no memory",
  async () => {
    const { close } = LocalRanks.prototype;
    LocalRanks.prototype.close = async function () {
      await close.call(this);
      throw new NcclError("ncclCommAbort", 1, "unhandled cuda error", "");
    };
    try {
      await withModel(MODEL, async (model) => {
        const options = { model, tensorParallelSize: 2, hostShare: 1, allowSharedDevice: false };
        const deviceSettings = "devices=2,memory=200M";
        const before = counts();
        await assert.rejects(load({ ...options, deviceSettings, numGpuBlocksOverride: 100_000 }), {
          name: "UsageError",
        });
        const executor = await load({ ...options, deviceSettings });
        await executor.close();
        assert.deepEqual(counts(), before);
      });
      const cuda = openCuda({ from: directory! });
      const free = { numInstances: 1, devicesEach: 2, allowShared: false, patienceMs: 0 };
      (await leaseDevices(cuda, free)).release();
    } finally {
      LocalRanks.prototype.close = close;
    }
  },
);

async function refused(options: LoadOptions, message: RegExp): Promise<void> {
  await withModel(MODEL, async (model) => {
    await assert.rejects(load({ model, deviceSettings: DEVICES, hostShare: 1, ...options }), {
      name: "UsageError",
      message,
    });
  });
}

cudaTest("models that cannot be divided, and too few devices, are refused", async () => {
  await refused(
    { tensorParallelSize: 3 },
    /^--tensor-parallel-size 3: the model \S+ cannot be divided among 3 devices, because its attention heads \(4\) cannot/,
  );
  await withModel(`${MODEL} --intermediate 168`, async (model) => {
    const options = { model, deviceSettings: DEVICES, hostShare: 1, dtype: "bfloat16" } as const;
    await assert.rejects(load({ ...options, tensorParallelSize: 2 }), {
      name: "ModelError",
      message: /its intermediate size on a device is 84, and must be a multiple of 8 in bfloat16/,
    });
  });
  const narrow =
    "--heads 18 --kv-heads 18 --head-dim 8 --hidden 144 --intermediate 144 --vocab 288";
  await withModel(narrow, async (model) => {
    await assert.rejects(load({ model, tensorParallelSize: 18 }), {
      name: "UsageError",
      message: /^--tensor-parallel-size 18: the vocabulary of the model \S+ \(288\) is too small/,
    });
  });
  await refused(
    { tensorParallelSize: 4, deviceSettings: "devices=2" },
    /^--tensor-parallel-size 4: each rank needs a device of its own, and the driver shows 2\./,
  );
  await refused(
    { tensorParallelSize: 2, hostShare: 3, allowSharedDevice: false },
    /^--device cuda: 3 instances need 2 devices each, and the driver shows 4\./,
  );
});

cudaTest("a host without NCCL is refused", async () => {
  const from = await Deno.makeTempDir();
  try {
    assert.throws(() => openCommunicators([0, 1], { from }), {
      name: "UsageError",
      message: /^--tensor-parallel-size 2 needs NCCL: .*libnccl/,
    });
  } finally {
    await Deno.remove(from);
  }
});

cudaTest("an instance takes all of its devices or none, and shares them like others", async () => {
  configure(`devices=3,identity=${Deno.pid}`);
  const cuda = openCuda({ from: directory! });
  const lease = (numInstances: number, allowShared = false) =>
    leaseDevices(cuda, { numInstances, devicesEach: 2, allowShared, patienceMs: 0 });
  const first = await lease(1);
  assert.deepEqual(first.ordinals, [0, 1]);
  await assert.rejects(lease(1), /other instances use all 3 devices/);
  first.release();
  // Devices that are not next to each other, where no others are free.
  const one = { numInstances: 1, devicesEach: 1, allowShared: false, patienceMs: 0 };
  const singles = [await leaseDevices(cuda, one), await leaseDevices(cuda, one)];
  singles[0].release();
  const apart = await lease(1);
  assert.deepEqual(apart.ordinals, [0, 2]);
  for (const { release } of [apart, singles[1]]) release();
  const shared = [await lease(3, true), await lease(3, true), await lease(3, true)];
  assert.deepEqual(shared.map(({ ordinals }) => ordinals), [[0, 1], [2, 0], [1, 2]]);
  assert.ok(shared.every(({ sharedBy }) => sharedBy === 2));
  for (const { release } of shared) release();
});
