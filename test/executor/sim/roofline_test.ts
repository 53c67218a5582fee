import assert from "node:assert/strict";
import { decodeMs, prefillMs, transferMs } from "../../../src/executor/sim/profile.ts";
import {
  builtinModelNames,
  builtinProfile,
  gpuTypes,
  kvBytesPerToken,
} from "../../../src/executor/sim/roofline.ts";
import { resolveSimulation } from "../../../src/executor/sim/simulation.ts";
import { engineOptions } from "../../instance/support.ts";

function isNear(actual: number, expected: number, relative: number): void {
  assert.ok(Math.abs(actual / expected - 1) <= relative, `${actual}, expected ${expected}`);
}

Deno.test("LLaMA-7B on A10 is as the paper measured it", () => {
  const profile = builtinProfile("a10", "llama-7b");
  isNear(prefillMs(profile, 8192), 2000, 0.02);
  const kvBytes = 8192 * kvBytesPerToken(profile.shape);
  isNear(transferMs(profile.migration, kvBytes), 1700, 1e-9);
  assert.equal(profile.blocks[0].numBlocks * 16, 13616);
});

Deno.test("the formula for blocks comes near the number that was measured", () => {
  const key = { memoryUtilization: 0.8999, blockSize: 16, maxBatchedTokens: 2048 };
  isNear(builtinProfile("a10", "llama-7b", key).blocks[0].numBlocks, 851, 0.05);
});

Deno.test("a decode step is no faster than its memory traffic at the datasheet's peak", () => {
  const peak = 600e6; // bytes per ms of an A10
  const profile = builtinProfile("a10", "llama-7b");
  const weightBytes = 6_738_415_616 * 2;
  for (const tokens of [128, 4096, 13000]) {
    const bytes = weightBytes + tokens * kvBytesPerToken(profile.shape);
    const ms = decodeMs(profile, 8, tokens);
    assert.ok(ms > bytes / peak && ms < 2 * bytes / peak, `${ms} ms for ${tokens} tokens`);
  }
});

Deno.test("newer GPUs are faster, and every profile says where its numbers come from", () => {
  for (const model of builtinModelNames) {
    let lastMs = Infinity;
    for (const gpu of gpuTypes) {
      const profile = builtinProfile(gpu, model);
      const { prefill, decode, blocks, migration, swap } = profile;
      for (const { source } of [prefill, decode, ...blocks, migration, swap]) {
        assert.ok(source.length > 20, `${gpu} ${model}`);
      }
      const ms = prefillMs(profile, 512) + 100 * decodeMs(profile, 16, 8192);
      assert.ok(ms < lastMs, `${gpu} ${model}`);
      lastMs = ms;
    }
  }
});

Deno.test("inputs count in multiples of eight", () => {
  const profile = builtinProfile("a10", "llama-7b");
  assert.equal(prefillMs(profile, 1), prefillMs(profile, 8));
  assert.ok(prefillMs(profile, 9) > prefillMs(profile, 8));
  assert.equal(decodeMs(profile, 3, 101), decodeMs(profile, 8, 104));
});

Deno.test("unknown GPUs and models, and models that do not fit, are refused", () => {
  assert.throws(() => builtinProfile("b200", "llama-7b"), {
    name: "UsageError",
    message: /^--gpu-type b200 has no built-in profile: expected a10, a100, h100, h200/,
  });
  assert.throws(() => builtinProfile("a10", "gpt-4"), {
    name: "UsageError",
    message: /^There is no built-in profile of gpt-4 .* expected llama-7b, llama-3.1-8b, qwen2.5/,
  });
  assert.throws(() => builtinProfile("a10", "llama7b"), { message: /did you mean llama-7b\?$/ });
  assert.throws(() => builtinProfile("h20", "llama-7b"), { message: /did you mean h200\?$/ });
  const key = { memoryUtilization: 0.5, blockSize: 16, maxBatchedTokens: null };
  assert.throws(() => builtinProfile("a10", "llama-7b", key), {
    name: "UsageError",
    message:
      /^llama-7b does not fit the a10 with --gpu-memory-utilization 0.5.* Raise --gpu-memory/,
  });
});

Deno.test("a simulated instance: sizes and their limits", () => {
  const sim = (overrides: Parameters<typeof engineOptions>[0]) =>
    resolveSimulation(engineOptions({ model: "meta-llama/Llama-3.1-8B", ...overrides }));
  assert.equal(sim({ gpuType: "a100" }).maxModelLen, 16384);
  assert.equal(sim({ gpuType: "h200", maxModelLen: 131072 }).maxModelLen, 131072);
  assert.ok(sim({ gpuMemoryUtilization: 0.8 }).numBlocks < sim({}).numBlocks);
  assert.ok(sim({ maxModelLen: 8192 }).numBlocks > sim({}).numBlocks, "smaller activations");
  assert.equal(sim({ blockSize: 32 }).layout.blockSize, 32);
  const cases: [Parameters<typeof engineOptions>[0], RegExp][] = [
    [
      { maxModelLen: 200_000, gpuType: "h200" },
      /--max-model-len 200000 is more than the 131072 tokens/,
    ],
    [{ maxModelLen: 4096, numGpuBlocksOverride: 100 }, /holds 1600 tokens \(100 blocks of 16\)/],
    [{ dtype: "float32" }, /the profile of llama-3.1-8b is for bfloat16/],
    [{ model: null }, /--device sim needs --model: one of llama-7b/],
  ];
  for (const [overrides, message] of cases) {
    assert.throws(() => sim(overrides), { name: "UsageError", message });
  }
});
