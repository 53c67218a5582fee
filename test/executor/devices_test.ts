import assert from "node:assert/strict";
import type { EngineOptions } from "../../src/core/options.ts";
import { vllmArguments } from "../../src/cli/arguments/vllm.ts";
import {
  devices,
  executorKind,
  findExecutorKind,
  fp8Problem,
  loadExecutor,
  ranksProblem,
} from "../../src/executor/devices.ts";
import { directory } from "../ffi/software_device/device.ts";
import { engineOptions } from "../instance/support.ts";

/** Small, and of each device. */
const shape = { maxModelLen: 128, numGpuBlocksOverride: 16, blockSize: 16, swapSpace: 0 } as const;

Deno.test("each device is a choice of --device that starts", () => {
  const { choices, hiddenChoices, laterChoices, refusedChoices } = vllmArguments.device;
  for (const { device } of devices) {
    assert.ok([...choices!, ...hiddenChoices].includes(device), device);
    assert.ok(!laterChoices.includes(device) && !(device in refusedChoices), device);
  }
  const others = choices!.filter((choice) => devices.every(({ device }) => device !== choice));
  assert.deepEqual(others, ["auto", ...laterChoices, ...Object.keys(refusedChoices)]);
});

Deno.test("auto takes the first device that is present, and never one that is not looked for", () => {
  const found = executorKind("auto");
  assert.equal(found, devices.find(({ isPresent }) => isPresent?.()));
  assert.ok(["cpu", "cuda"].includes(found.device), found.device);
});

Deno.test("a device that is not there is refused", () => {
  const device = "neuron" as EngineOptions["device"];
  assert.equal(findExecutorKind(device), undefined);
  assert.throws(() => executorKind(device), {
    name: "UsageError",
    message: "--device neuron: this program has no such device",
  });
});

Deno.test("8 bits are refused by devices that do not have them", async () => {
  for (const { device, hasFp8 } of devices) {
    assert.equal(hasFp8, device === "cuda");
    const options = engineOptions({ ...shape, device });
    for (const asked of [{ quantization: "fp8" }, { kvCacheDtype: "fp8" }] as const) {
      const found = fp8Problem({ ...options, ...asked });
      if (hasFp8) {
        assert.equal(found, null);
        continue;
      }
      assert.equal(
        found,
        `--${"quantization" in asked ? "quantization" : "kv-cache-dtype"} fp8 needs ` +
          `--device cuda, and the device is ${device}. Leave it out, or use another device.`,
      );
      const spec = { device, options: { ...options, ...asked }, hostShare: 1 };
      await assert.rejects(loadExecutor(spec, () => {}), { name: "UsageError", message: found! });
    }
    assert.equal(fp8Problem(options), null);
  }
});

Deno.test("several ranks are refused by devices that do not have them", async () => {
  for (const { device, hasRanks } of devices) {
    assert.equal(hasRanks, device === "cuda");
    const options = engineOptions({ ...shape, device, tensorParallelSize: 2 });
    const found = ranksProblem(options);
    assert.equal(found === null, hasRanks);
    if (found === null) continue;
    assert.match(found, /^--tensor-parallel-size 2 needs --device cuda, and the device is /);
    const spec = { device, options, hostShare: 1 };
    await assert.rejects(loadExecutor(spec, () => {}), { name: "UsageError", message: found });
  }
  assert.equal(ranksProblem(engineOptions({ device: "cpu" })), null);
});

for (const kind of devices) {
  const { device } = kind;
  const model = kind.usesProfile ? "llama-7b" : null;
  const options = engineOptions({ ...shape, device, model });

  const ignore = kind.memory === "device" && directory === null;
  const skipped = ignore ? " (skipped: no C++ compiler for the software device)" : "";
  Deno.test({ name: `${device}: what is found is what is loaded${skipped}`, ignore }, async () => {
    if (kind.memory === "device") Deno.env.set("LLUMNIX_CUDA_LIBRARIES", directory!);
    const found = await kind.find(options);
    const executor = await loadExecutor({ device, options, hostShare: 1 }, () => {});
    const { info: { model, dtype, maxModelLen, vocabSize }, pool } = executor;
    if (found.served !== null) {
      assert.deepEqual({ model, dtype, maxModelLen }, found.served);
      assert.deepEqual([maxModelLen, vocabSize], [found.maxModelLen, found.vocabSize]);
    }
    assert.equal(pool!.memory, kind.memory);
    assert.deepEqual(pool!.layout, executor.info.layout);
    assert.equal(pool!.numBlocks, executor.info.numBlocks);
    await executor.close();
  });
}
