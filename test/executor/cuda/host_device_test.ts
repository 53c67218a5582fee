/**
 * The CUDA executor on a GPU, where there is one: the suite of executors, logits and greedy tokens against
 * Hugging Face transformers. `scripts/gpu_verify.sh` runs it.
 */
import assert from "node:assert/strict";
import { openCuda } from "../../../ffi/cuda/open.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import { loadCudaExecutor } from "../../../src/executor/cuda/load.ts";
import type { Executor } from "../../../src/executor/executor.ts";
import { testExecutor } from "../../conformance/executor.ts";
import { referenceLogits, references, runReference } from "../cpu/fixtures.ts";
import { defaultOptions, relativeError } from "../cpu/harness.ts";

const missing = whatIsMissing();

function whatIsMissing(): string | null {
  try {
    return openCuda().deviceCount() > 0 ? null : "no GPU";
  } catch {
    return "no GPU";
  }
}

/** Two executors of a test share the device. */
function load(changes: Partial<EngineOptions> = {}): Promise<Executor> {
  const options = {
    ...defaultOptions,
    device: "cuda" as const,
    allowSharedDevice: true,
    ...changes,
  };
  const hostShare = 2 * openCuda().deviceCount();
  return loadCudaExecutor({ device: "cuda", options, hostShare }, () => {});
}

if (missing === null) testExecutor("cuda executor on this host's device", () => load());

for (const reference of references) {
  Deno.test({
    name: `cuda executor on this host's device: transformers, ${reference.name}` +
      (missing === null ? "" : ` (skipped: ${missing})`),
    ignore: missing !== null,
    async fn() {
      const f32 = await runReference(reference, "--dtype f32", {}, load);
      const error = relativeError(f32.logits, referenceLogits(reference, reference.f32.logits));
      assert.ok(error <= 1e-5, `relative error ${error} in float32`);
      assert.deepEqual(f32.tokens, reference.f32.tokens);
      const { torchRelativeError, logits } = reference.bf16;
      const bf16 = await runReference(reference, "--dtype bf16", {}, load, 1);
      const narrowError = relativeError(bf16.logits, referenceLogits(reference, logits));
      assert.ok(
        narrowError <= torchRelativeError,
        `${narrowError}, torch's: ${torchRelativeError}`,
      );
    },
  });
}
