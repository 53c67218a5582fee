import assert from "node:assert/strict";
import { resolveEngineConfig } from "../../../src/instance/engine/engine_config.ts";
import { engineOptions } from "../support.ts";

const identity = { instanceId: "i0", instanceType: "both" as const, maxWaitingRequests: 10 };

Deno.test("resolveEngineConfig: a step holds 2048 tokens or the longest sequence", () => {
  assert.equal(
    resolveEngineConfig(identity, engineOptions(), { maxModelLen: 512 }).maxNumBatchedTokens,
    2048,
  );
  assert.equal(
    resolveEngineConfig(identity, engineOptions(), { maxModelLen: 4096 }).maxNumBatchedTokens,
    4096,
  );
});

Deno.test("resolveEngineConfig: unless it is asked for, only one prompt makes a longer step", () => {
  const sharedTokens = (maxNumBatchedTokens: number | null, maxModelLen: number) =>
    resolveEngineConfig(identity, engineOptions({ maxNumBatchedTokens }), { maxModelLen })
      .maxSharedPrefillTokens;
  assert.equal(sharedTokens(null, 512), 2048);
  assert.equal(sharedTokens(null, 4096), 2048);
  assert.equal(sharedTokens(8192, 4096), 8192);
  assert.equal(sharedTokens(512, 512), 512);
});

Deno.test("resolveEngineConfig: preemption recomputes by default", () => {
  assert.equal(
    resolveEngineConfig(identity, engineOptions(), { maxModelLen: 512 }).preemptionMode,
    "recompute",
  );
  const options = engineOptions({ preemptionMode: "swap" });
  assert.equal(resolveEngineConfig(identity, options, { maxModelLen: 512 }).preemptionMode, "swap");
});

Deno.test("resolveEngineConfig: a step may take longer by its tokens, or any time", () => {
  const timeouts = (stepTimeout: number, tokenTimeoutMs?: number) => {
    const info = { maxModelLen: 512, tokenTimeoutMs };
    const config = resolveEngineConfig(identity, engineOptions({ stepTimeout }), info);
    return [config.stepTimeoutMs, config.stepTimeoutPerTokenMs];
  };
  assert.deepEqual(timeouts(5), [5_000, 0]);
  assert.deepEqual(timeouts(60, 500), [60_000, 500]);
  assert.equal(timeouts(0, 500)[0], Infinity);
});

Deno.test("resolveEngineConfig: limits that contradict each other are refused", () => {
  assert.throws(
    () =>
      resolveEngineConfig(identity, engineOptions({ maxNumBatchedTokens: 500 }), {
        maxModelLen: 512,
      }),
    { name: "UsageError", message: /--max-num-batched-tokens \(500\) is smaller than the longest/ },
  );
  assert.throws(
    () =>
      resolveEngineConfig(identity, engineOptions({ maxNumBatchedTokens: 200 }), {
        maxModelLen: 128,
      }),
    { name: "UsageError", message: /smaller than --max-num-seqs \(256\)/ },
  );
});
