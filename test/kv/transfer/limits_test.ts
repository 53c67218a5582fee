import assert from "node:assert/strict";
import { DEFAULT_BUFFER_BLOCKS, fitLimits } from "../../../src/kv/transfer/limits.ts";

type Pool = Parameters<typeof fitLimits>[1];

const pool = { numBlocks: 300, layout: { numLayers: 4 } } as Pool;

Deno.test("limits that fit stay", () => {
  const limits = { bufferBlocks: 300, numLayers: 4 };
  assert.deepEqual(fitLimits(limits, pool), { limits, warning: null });
});

Deno.test("larger limits are reduced to the pool, with a warning", () => {
  assert.deepEqual(fitLimits({ bufferBlocks: 400, numLayers: 9 }, pool), {
    limits: { bufferBlocks: 300, numLayers: 4 },
    warning:
      "--migration-buffer-blocks 400 is more than the 300 KV blocks of the instance: reduced " +
      "to 300",
  });
});

Deno.test("nobody set the default, so its reduction needs no warning", () => {
  const wanted = { bufferBlocks: DEFAULT_BUFFER_BLOCKS, numLayers: 1 };
  const limits = { bufferBlocks: 300, numLayers: 1 };
  assert.deepEqual(fitLimits(wanted, pool), { limits, warning: null });
});
