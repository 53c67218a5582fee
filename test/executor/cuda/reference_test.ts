/** The CUDA executor, on the software device, against Hugging Face transformers. */
import assert from "node:assert/strict";
import { referenceLogits, references, runReference } from "../cpu/fixtures.ts";
import { relativeError } from "../cpu/harness.ts";
import { cudaTest, load } from "./support.ts";

for (const reference of references) {
  cudaTest(`transformers: ${reference.name} f32`, async () => {
    const { logits, tokens } = await runReference(reference, "--dtype f32", {}, load);
    const error = relativeError(logits, referenceLogits(reference, reference.f32.logits));
    assert.ok(error <= 1e-5, `relative error ${error}`);
    assert.deepEqual(tokens, reference.f32.tokens);
  });

  // As on the CPU: torch in bfloat16 also rounds what we keep in float32, so its error bounds ours.
  cudaTest(`transformers: ${reference.name} bf16`, async () => {
    const { logits } = await runReference(reference, "--dtype bf16", {}, load, 1);
    const error = relativeError(logits, referenceLogits(reference, reference.bf16.logits));
    const torchError = reference.bf16.torchRelativeError;
    assert.ok(error <= torchError, `relative error ${error}, torch's is ${torchError}`);
  });
}
