import assert from "node:assert/strict";
import { ModelError, UsageError } from "../../../src/core/errors.ts";
import { loadCpuExecutor } from "../../../src/executor/cpu/load.ts";
import type { LoadProgress } from "../../../src/executor/executor.ts";
import { withModel } from "./fixtures.ts";
import { defaultOptions, Driver, load, randomPrompt } from "./harness.ts";

Deno.test("load: what is loaded is described", async () => {
  const executor = await load({
    cpuKernels: "wasm",
    maxModelLen: 100,
    numGpuBlocksOverride: 9,
  });
  const { layout, ...info } = executor.info;
  assert.equal(executor.pool, null, "the memory of WASM belongs to its thread");
  assert.deepEqual(info, {
    description: "cpu (wasm, 1 thread)",
    model: "llumnix-tiny",
    dtype: "float32",
    vocabSize: 261,
    maxModelLen: 100,
    maxPieceTokens: 512,
    numBlocks: 9,
    numSwapBlocks: 116,
    tokenTimeoutMs: 1,
  });
  assert.deepEqual(layout, {
    format: "k-transposed",
    dtype: "float32",
    numLayers: 2,
    numKvHeads: 2,
    headDim: 16,
    blockSize: 16,
  });
  await executor.close();
});

Deno.test("load: progress is by bytes, ends complete, and tells the phases apart", async () => {
  await withModel("--shards 2", async (model) => {
    const progress: LoadProgress[] = [];
    const spec = { device: "cpu" as const, options: { ...defaultOptions, model }, hostShare: 1 };
    const executor = await loadCpuExecutor(spec, (entry) => progress.push(entry));
    await executor.close();
    const phases = progress.map(({ phase }) => phase).filter((p, i, all) => p !== all[i - 1]);
    assert.deepEqual(phases, ["kernels", "weights", "kv-cache", "swap-pool"]);
    const weights = progress.filter(({ phase }) => phase === "weights");
    weights.slice(1).forEach(({ doneBytes }, i) => assert.ok(doneBytes > weights[i].doneBytes));
    const stored = ["00001", "00002"]
      .map((n) => Deno.statSync(`${model}/model-${n}-of-00002.safetensors`).size)
      .reduce((sum, size) => sum + size);
    const last = weights[weights.length - 1];
    assert.equal(last.doneBytes, last.totalBytes);
    assert.ok(last.totalBytes < stored && last.totalBytes > stored - 8192, "all but the headers");
    assert.equal(last.detail, "2 safetensors files");
    const [kvCache, swapPool] = (["kv-cache", "swap-pool"] as const).map((phase) =>
      progress.findLast((one) => one.phase === phase)!
    );
    assert.equal(kvCache.detail, "128 blocks of 16 tokens");
    assert.match(swapPool.detail, /^\d+ blocks of 16 tokens$/);
    for (const pool of [kvCache, swapPool]) assert.equal(pool.doneBytes, pool.totalBytes);
  });
});

Deno.test("load: memory decides the number of blocks, unless they are given", async () => {
  const executor = await load({ numGpuBlocksOverride: null, maxNumSeqs: 3, maxModelLen: 160 });
  const { numBlocks } = executor.info;
  assert.ok(numBlocks >= 30 && numBlocks <= 35, `three sequences of 10 blocks: ${numBlocks}`);
  await executor.close();
  await assert.rejects(
    load({ numGpuBlocksOverride: null, gpuMemoryUtilization: 1e-9 }),
    (error) =>
      error instanceof UsageError &&
      /holds 0 tokens .* Lower --max-model-len or the number of instances, or raise/
        .test(error.message),
  );
});

Deno.test("load: --load-format dummy is random by the seed", async () => {
  await withModel("--family qwen2", async (model) => {
    Deno.removeSync(`${model}/model.safetensors`);
    const tokens = async (seed: number) => {
      const executor = await load({ model, loadFormat: "dummy", seed });
      const driver = new Driver(executor);
      const output = await driver.generate(driver.add(randomPrompt(1, 20, 320)), 16);
      await executor.close();
      return output;
    };
    const first = await tokens(1);
    assert.deepEqual(await tokens(1), first);
    assert.notDeepEqual(await tokens(2), first);
  });
});

Deno.test("load: kernels that are not there are refused", async () => {
  const cpuKernels = Deno.build.arch === "aarch64" ? "avx2" : "neon";
  await assert.rejects(load({ cpuKernels }), (error) => {
    assert.ok(error instanceof UsageError);
    assert.match(error.message, /^--cpu-kernels: \w+ kernels are not available: /);
    return true;
  });
});

Deno.test("load: models of which the kernels cannot compute the shape are refused", async () => {
  const refusal = async (args: string, message: RegExp) => {
    await withModel(args, async (model) => {
      await assert.rejects(load({ model }), (error) => {
        assert.ok(error instanceof ModelError);
        assert.match(error.message, message);
        return true;
      });
    });
  };
  await refusal("--head-dim 20", /cannot run on the CPU: its head size is 20, and must be a mul/);
  await refusal("--head-dim 264", /its head size is 264, .* multiple of 8 up to 256/);
  await refusal(
    "--intermediate 161",
    /cannot run on the CPU: pack: k is 161, expected an even number/,
  );
});

Deno.test("load: weights that do not fit the config are refused", async () => {
  await withModel("--family qwen2", async (model) => {
    const path = `${model}/config.json`;
    const config = JSON.parse(Deno.readTextFileSync(path));
    const refusal = async (changes: Record<string, unknown>, message: string) => {
      Deno.writeTextFileSync(path, JSON.stringify({ ...config, ...changes }));
      await assert.rejects(load({ model }), (error) => {
        assert.ok(error instanceof ModelError);
        assert.equal(error.message.replaceAll(model, "DIR"), message);
        return true;
      });
    };
    await refusal(
      { num_hidden_layers: 3 },
      "Tensor model.layers.2.input_layernorm.weight [64] is missing in DIR. The weights and " +
        "config.json are not of the same model, or the download is incomplete.",
    );
    await refusal(
      { num_key_value_heads: 4 },
      "Tensor model.layers.0.self_attn.k_proj.weight in DIR/model.safetensors has shape " +
        "[32, 64]; config.json implies [64, 64]. The weights and config.json are not of the " +
        "same model.",
    );
    const weights = `${model}/model.safetensors`;
    Deno.truncateSync(weights, Deno.statSync(weights).size - 1);
    await assert.rejects(load({ model }), (error) => {
      assert.ok(error instanceof ModelError);
      assert.match(
        error.message,
        /model.safetensors is not a valid .*: tensor lm_head.weight lies at bytes \d+ to \d+ of/,
      );
      return true;
    });
  });
});
