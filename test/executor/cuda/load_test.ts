/** What the CUDA executor refuses, and which device it takes. */
import assert from "node:assert/strict";
import { openCuda } from "../../../ffi/cuda/open.ts";
import { type DeviceLease, leaseDevices } from "../../../src/executor/cuda/device_lease.ts";
import type { LoadProgress } from "../../../src/executor/executor.ts";
import { configure, counts, directory } from "../../ffi/software_device/device.ts";
import { layoutDifference } from "../../../src/kv/layout.ts";
import { withModel } from "../cpu/fixtures.ts";
import { Driver, load as loadOnCpu } from "../cpu/harness.ts";
import { cudaTest, load, type LoadOptions } from "./support.ts";

async function refused(options: LoadOptions, name: string, message: RegExp): Promise<void> {
  const before = counts();
  await assert.rejects(load(options), { name, message });
  assert.deepEqual(counts(), before, "what a failed load took is freed");
}

cudaTest("what is loaded is described, and its progress", async () => {
  const phases: LoadProgress[] = [];
  const executor = await load({
    dtype: "bfloat16",
    onProgress: (progress) => phases.push(progress),
  });
  const { description, dtype, layout, numBlocks } = executor.info;
  assert.equal(description, "cuda:0 (the software device)");
  assert.deepEqual([dtype, layout.format, numBlocks], ["bfloat16", "k-then-v", 128]);
  assert.deepEqual(
    new Set(phases.map(({ phase }) => phase)),
    new Set(["kernels", "weights", "kv-cache"]),
  );
  const weights = phases.filter(({ phase }) => phase === "weights");
  assert.equal(weights.at(-1)!.doneBytes, weights.at(-1)!.totalBytes);
  // Requests cannot move between this and an instance on the CPU: see the llumlet's test of layouts.
  const cpu = await loadOnCpu({ dtype: "bfloat16" });
  assert.equal(
    layoutDifference(layout, cpu.info.layout),
    "format is k-then-v here and k-transposed there",
  );
  const narrow = await load({ dtype: "bfloat16", kvCacheDtype: "fp8", quantization: "fp8" });
  assert.equal(
    layoutDifference(narrow.info.layout, layout),
    "dtype is float8_e4m3 here and bfloat16 there",
  );
  assert.equal(narrow.info.dtype, "bfloat16, weights in fp8");
  await narrow.close();
  await cpu.close();
  await executor.close();
});

cudaTest("memory of the device decides the number of blocks", async () => {
  const blocksOf = async (options: LoadOptions) => {
    const executor = await load({
      ...{
        numGpuBlocksOverride: null,
        maxNumSeqs: 4096,
        deviceSettings: "memory=512M",
        hostShare: 1,
      },
      ...options,
    });
    const { numBlocks, layout } = executor.info;
    await executor.close();
    assert.equal(layout.numLayers, 2);
    return numBlocks;
  };
  const half = await blocksOf({ gpuMemoryUtilization: 0.4 });
  const most = await blocksOf({ gpuMemoryUtilization: 0.6 });
  // 0.2 of 512 MiB in blocks of 16 tokens, 2 layers, 2 heads of 16 float32 keys and values.
  const expected = 0.2 * 2 ** 29 / (16 * 2 * 2 * 2 * 16 * 4);
  assert.ok(Math.abs(most - half - expected) < 100, `${half} and ${most} blocks`);
});

cudaTest("models and options that do not fit are refused with what to change", async () => {
  await refused(
    { deviceSettings: "memory=1M" },
    "UsageError",
    /^Cannot allocate .*: .* of device memory is needed, and .* is free\. .*smaller model/,
  );
  await refused(
    { deviceSettings: "kernels=/nowhere/kernels.so" },
    "UsageError",
    /^--device cuda: the kernels cannot be loaded: .*driver of CUDA 11\.8/,
  );
  await refused(
    { deviceSettings: "compute-capability=75" },
    "UsageError",
    /has compute capability 7\.5, and 8\.0 \(Ampere\) or later is needed\. Use another device, or --device cpu/,
  );
  for (const damaged of ["fail-load=218", "fail-load=200"]) {
    await refused(
      { deviceSettings: damaged },
      "UsageError",
      /^--device cuda: the kernels cannot be loaded: .* is damaged: install it again/,
    );
  }
  for (
    const [option, changes] of [
      ["--quantization fp8", { quantization: "fp8", dtype: "bfloat16" }],
      ["--kv-cache-dtype fp8", { kvCacheDtype: "fp8" }],
    ] as const
  ) {
    await refused(
      { ...changes, deviceSettings: "compute-capability=86" },
      "UsageError",
      new RegExp(
        `^${option}: .* has compute capability 8\\.6, and FP8 needs 8\\.9 \\(Ada, Hopper\\) or later\\. ` +
          "Leave the option out, or use another device",
      ),
    );
    await (await load({ ...changes, deviceSettings: "compute-capability=89" })).close();
  }
  await refused(
    { quantization: "fp8" },
    "UsageError",
    /^--quantization fp8: the model is computed in float32\. Add --dtype bfloat16 or float16/,
  );
  await withModel(
    "--head-dim 24 --heads 2 --kv-heads 1 --hidden 48 --dtype bf16",
    async (model) => {
      await refused(
        { model, kvCacheDtype: "fp8" },
        "ModelError",
        /cannot have an FP8 KV cache: its head size is 24, and must be a multiple of 16/,
      );
    },
  );
  await withModel("--hidden 72 --head-dim 16 --dtype bf16", (model) =>
    refused(
      { model, quantization: "fp8" },
      "ModelError",
      /cannot have weights in FP8: its hidden size is 72, and must be a multiple of 16/,
    ));
  await refused({ blockSize: 12 }, "UsageError", /^--block-size 12: CUDA takes powers of two/);
  await refused(
    { numGpuBlocksOverride: 1_000_000 },
    "UsageError",
    /A KV cache of 1000000 blocks .* does not fit/,
  );
  await withModel(
    "--hidden 68 --head-dim 16 --dtype bf16",
    (model) =>
      refused(
        { model },
        "ModelError",
        /its hidden size is 68, and must be a multiple of 8 in bfloat16/,
      ),
  );
  await withModel(
    "--head-dim 12",
    (model) =>
      refused(
        { model },
        "ModelError",
        /its head size is 12, and must be a multiple of 8 up to 256/,
      ),
  );
  await withModel("--heads 64 --kv-heads 1 --head-dim 256", (model) =>
    refused(
      { model },
      "ModelError",
      /heads of 256 in groups of 64 need \d+ bytes of shared memory in float32.*--dtype bfloat16/,
    ));
});

cudaTest("machine code that the driver refuses is left out, and the log says so", async () => {
  // Damaged, or newer than the driver: PTX serves. Machine code of another device is not even tried.
  for (
    const [deviceSettings, warning] of [["fail-cubin=200", 1], [
      "compute-capability=89",
      0,
    ]] as const
  ) {
    const executor = await load({ dtype: "bfloat16", deviceSettings });
    const { warnings = [] } = executor.info;
    assert.equal(warnings.length, warning, warnings.join());
    if (warning === 1) {
      assert.match(
        warnings[0],
        /^The driver refuses the machine code .* decode steps are slower.*device kernel image is invalid.*Update the driver/,
      );
    }
    const driver = new Driver(executor);
    const { tokenIds } = await driver.prefill(driver.add([1, 2, 3]));
    assert.ok(tokenIds[0] >= 0);
    await executor.close();
  }
});

cudaTest("fewer devices than instances are refused, unless they may be shared", async () => {
  await refused(
    { hostShare: 3, allowSharedDevice: false, deviceSettings: "devices=2" },
    "UsageError",
    /^--device cuda: 3 instances need a device each, and the driver shows 2\. .*--allow-shared-device/,
  );
  const shared = { hostShare: 3, allowSharedDevice: true, deviceSettings: "devices=2" };
  const executors = [await load(shared), await load(shared), await load(shared)];
  const devices = executors.map(({ info }) => info.description.slice(0, 6));
  assert.deepEqual(devices, ["cuda:0", "cuda:1", "cuda:0"]);
  for (const executor of executors) await executor.close();
});

cudaTest(
  "services that share a device by different numbers are refused, and both are named",
  async () => {
    configure(`devices=1,identity=${Deno.pid}`);
    const cuda = openCuda({ from: directory! });
    const lease = (numInstances: number) =>
      leaseDevices(cuda, { numInstances, devicesEach: 1, allowShared: true, patienceMs: 0 });
    const refusedBeside = async (held: number, wanted: number, message: RegExp) => {
      const one = await lease(held);
      await assert.rejects(lease(wanted), { name: "UsageError", message });
      one.release();
      (await lease(wanted)).release();
    };
    const { pid } = Deno;
    await refusedBeside(
      1,
      2,
      new RegExp(
        `process ${pid} would share it among 2 instances, but on device 0: process ${pid} uses it alone\\.`,
      ),
    );
    await refusedBeside(
      3,
      1,
      new RegExp(
        `process ${pid} would use it alone, but on device 0: process ${pid} uses it as one of 3 inst`,
      ),
    );
    await refusedBeside(3, 2, /would share it among 2 instances, but .* as one of 3 instances/);
    const both = [await lease(2), await lease(2)];
    await assert.rejects(lease(2), { message: /other instances use the device/ });
    for (const { release } of both) release();
  },
);

cudaTest("a device that an instance uses is taken again when it is released", async () => {
  await (await load({ deviceSettings: "devices=2" })).close();
  const cuda = openCuda({ from: directory! });
  const one = { numInstances: 1, devicesEach: 1, allowShared: false };
  const lease = () => leaseDevices(cuda, { ...one, patienceMs: 0 });
  const leases: DeviceLease[] = [await lease(), await lease()];
  assert.deepEqual(leases.map(({ ordinals }) => ordinals), [[0], [1]]);
  await assert.rejects(lease(), {
    name: "UsageError",
    message: /other instances use all 2 devices that the driver shows\. Stop one of them/,
  });
  const waiting = leaseDevices(cuda, one);
  leases[1].release();
  leases[1] = await waiting;
  assert.deepEqual(leases[1].ordinals, [1]);
  for (const { release } of leases) release();
});
