import assert from "node:assert/strict";
import type { EngineOptions } from "../../src/core/options.ts";
import { resolveEngineConfig } from "../../src/instance/engine_config.ts";
import { engineOptions } from "./support.ts";

const identity = { instanceId: "i0", instanceType: "both" as const, maxWaitingRequests: 10 };

Deno.test("resolveEngineConfig: a step holds 2048 tokens or the longest sequence", () => {
  assert.equal(resolveEngineConfig(identity, engineOptions(), 512).maxNumBatchedTokens, 2048);
  assert.equal(resolveEngineConfig(identity, engineOptions(), 4096).maxNumBatchedTokens, 4096);
});

Deno.test("resolveEngineConfig: unless it is asked for, only one prompt makes a longer step", () => {
  const sharedTokens = (maxNumBatchedTokens: number | null, maxModelLen: number) =>
    resolveEngineConfig(identity, engineOptions({ maxNumBatchedTokens }), maxModelLen)
      .maxSharedPrefillTokens;
  assert.equal(sharedTokens(null, 512), 2048);
  assert.equal(sharedTokens(null, 4096), 2048);
  assert.equal(sharedTokens(8192, 4096), 8192);
  assert.equal(sharedTokens(512, 512), 512);
});

Deno.test("resolveEngineConfig: preemption recomputes by default", () => {
  assert.equal(resolveEngineConfig(identity, engineOptions(), 512).preemptionMode, "recompute");
  const options = engineOptions({ preemptionMode: "swap" });
  assert.equal(resolveEngineConfig(identity, options, 512).preemptionMode, "swap");
});

Deno.test("resolveEngineConfig: a step may take longer on a CPU, or any time", () => {
  const timeouts = (overrides: Partial<EngineOptions>) => {
    const config = resolveEngineConfig(identity, engineOptions(overrides), 512);
    return [config.stepTimeoutMs, config.stepTimeoutPerTokenMs];
  };
  assert.deepEqual(timeouts({ device: "sim", stepTimeout: 5 }), [5_000, 0]);
  assert.deepEqual(timeouts({ device: "cpu", stepTimeout: 60 }), [60_000, 500]);
  assert.equal(timeouts({ stepTimeout: 0 })[0], Infinity);
});

Deno.test("resolveEngineConfig: limits that contradict each other are refused", () => {
  assert.throws(
    () => resolveEngineConfig(identity, engineOptions({ maxNumBatchedTokens: 500 }), 512),
    { name: "UsageError", message: /--max-num-batched-tokens \(500\) is smaller than the longest/ },
  );
  assert.throws(
    () => resolveEngineConfig(identity, engineOptions({ maxNumBatchedTokens: 200 }), 128),
    { name: "UsageError", message: /smaller than --max-num-seqs \(256\)/ },
  );
});
