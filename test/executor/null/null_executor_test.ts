import assert from "node:assert/strict";
import { NullExecutor } from "../../../src/executor/null/null_executor.ts";
import { testExecutor } from "../../conformance/executor.ts";
import { engineOptions } from "../../instance/support.ts";

testExecutor("null executor", () => {
  const spec = { device: "null" as const, options: engineOptions(), hostShare: 1 };
  return Promise.resolve(new NullExecutor(spec));
});

Deno.test("null executor: sizes come from the options", () => {
  const options = engineOptions({ numGpuBlocksOverride: 851, maxModelLen: 2048, blockSize: 16 });
  const { info } = new NullExecutor({ device: "null", options, hostShare: 1 });
  assert.equal(info.numBlocks, 851);
  assert.equal(info.maxModelLen, 2048);
  assert.equal(info.numSwapBlocks, 512, "4 GiB of LLaMA-7B's 8 MiB blocks");
});

Deno.test("null executor: an empty pool is refused", () => {
  const options = engineOptions({ numGpuBlocksOverride: 0 });
  assert.throws(
    () => new NullExecutor({ device: "null", options, hostShare: 1 }),
    { name: "UsageError", message: "--num-gpu-blocks-override is 0, expected 1 or more" },
  );
});
