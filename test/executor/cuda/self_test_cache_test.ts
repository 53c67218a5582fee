/** The outcome of a self-test is kept for the device, driver, program and model that it was made for, and no other. */
import assert from "node:assert/strict";
import { engineDefaults } from "../../../src/cli/arguments/tables.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import type { SelfTestDevice } from "../../../src/executor/cuda/load.ts";
import { cacheKey, readOutcome, writeOutcome } from "../../../src/executor/cuda/self_test/cache.ts";
import { resolveModel } from "../../../src/model/resolve.ts";

const options: EngineOptions = { ...engineDefaults(), device: "cuda", model: "llumnix-tiny" };
const model = resolveModel(options);
const device: SelfTestDevice = {
  info: {
    ...{ ordinal: 0, name: "NVIDIA H200", uuid: "GPU-1", pciBusId: "0000:01:00.0" },
    ...{ computeCapability: [9, 0], totalBytes: 1, multiprocessors: 132 },
    ...{ sharedMemoryPerBlockBytes: 227 << 10, l2CacheBytes: 50 << 20, copyEngines: 3 },
    ...{ gpuDirectRdma: true, ipcEvents: true },
  },
  driverVersion: 13000,
  softwareDevice: false,
};

Deno.test("self-test: a device of the same kind has the same key, whatever else differs another one", async () => {
  const key = (
    changes: Partial<SelfTestDevice> = {},
    given = model,
    option: Partial<EngineOptions> = {},
  ) => cacheKey(given, { ...device, ...changes }, { ...options, ...option }, []);
  const same = await key();
  assert.match(same, /^[0-9a-f]{64}$/);
  assert.equal(await key({ info: { ...device.info, ordinal: 1, uuid: "GPU-2" } }), same);
  assert.equal(await key({}, model, { maxNumSeqs: 7 }), same);
  const others = [
    await key({ driverVersion: 13010 }),
    await key({ info: { ...device.info, name: "NVIDIA H100" } }),
    await key({ info: { ...device.info, computeCapability: [9, 1] } }),
    await key({}, resolveModel({ ...options, dtype: "bfloat16" })),
    await key({}, { ...model, config: { ...model.config, headDim: 128 } }),
    await key({}, model, { kvCacheDtype: "fp8" }),
    await key({}, model, { quantization: "fp8" }),
    await key({}, model, { blockSize: 32 }),
    await cacheKey(model, device, options, ["graphs"]),
  ];
  assert.equal(new Set([same, ...others]).size, others.length + 1);
});

Deno.test("self-test: an outcome is read again, and a damaged one is as none", async () => {
  const directory = await Deno.makeTempDir();
  const before = Deno.env.get("XDG_CACHE_HOME");
  Deno.env.set("XDG_CACHE_HOME", directory);
  try {
    assert.equal(await readOutcome("a"), null);
    const outcome = { plain: ["graphs"], warnings: ["slower"] } as const;
    await writeOutcome("a", outcome);
    assert.deepEqual(await readOutcome("a"), outcome);
    assert.equal(await readOutcome("b"), null);
    const path = `${directory}/llumnix/self-test/a.json`;
    for (const text of ["", "{", "null", '{"plain":["none"],"warnings":[]}', '{"plain":[]}']) {
      await Deno.writeTextFile(path, text);
      assert.equal(await readOutcome("a"), null, text);
    }
    // Where nothing can be kept, the next start tests anew.
    Deno.env.set("XDG_CACHE_HOME", `${path}/below-a-file`);
    await writeOutcome("a", outcome);
    assert.equal(await readOutcome("a"), null);
  } finally {
    if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
    else Deno.env.set("XDG_CACHE_HOME", before);
    await Deno.remove(directory, { recursive: true });
  }
});
