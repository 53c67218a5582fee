/** The CPU executor against Hugging Face transformers, on every kernel set that runs here. */
import assert from "node:assert/strict";
import { kernelSetStates } from "../../../ffi/cpu_kernels/load.ts";
import type { KernelSet } from "../../../ffi/cpu_kernels/kernels.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import { type Reference, referenceLogits, references, withModel } from "./fixtures.ts";
import { centredLogits, Driver, load, relativeError } from "./harness.ts";

const kernelSets = kernelSetStates()
  .filter(({ unavailable }) => unavailable === null)
  .map(({ set }) => set);

/** Runs the reference's prompt; gives logits of its rows and 64 greedy tokens. */
async function run(
  reference: Reference,
  args: string,
  options: Partial<EngineOptions>,
): Promise<{ logits: Float64Array[]; tokens: number[] }> {
  return await withModel(`${reference.arguments} ${args}`, async (model) => {
    const executor = await load({ model, ...options });
    const { vocabSize } = executor.info;
    const driver = new Driver(executor);
    const all = { logprobs: vocabSize, promptLogprobs: vocabSize };
    const scored = driver.add(reference.prompt, all);
    await driver.prefill(scored);
    const logits = reference.rows.map((row) => {
      const scores = row + 1 < reference.prompt.length
        ? scored.promptLogprobs![row + 1]
        : scored.logprobs[0];
      return centredLogits(scores!, vocabSize);
    });
    const tokens = await driver.generate(driver.add(reference.prompt), 64);
    await executor.close();
    return { logits, tokens };
  });
}

function test(name: string, set: KernelSet, body: () => Promise<void>): void {
  Deno.test(`transformers: ${name} on ${set}`, body);
}

for (const reference of references) {
  for (const set of kernelSets) {
    test(`${reference.name} f32`, set, async () => {
      const { logits, tokens } = await run(reference, "--dtype f32", { cpuKernels: set });
      const error = relativeError(logits, referenceLogits(reference, reference.f32.logits));
      assert.ok(error <= 1e-5, `relative error ${error}`);
      assert.deepEqual(tokens, reference.f32.tokens);
    });

    // The truth is float32 arithmetic over the same bfloat16 weights. Torch in bfloat16 also rounds
    // what we keep in float32, so its error bounds ours (measured: ours is 0.5 to 0.7 of it).
    test(`${reference.name} bf16`, set, async () => {
      const { logits } = await run(reference, "--dtype bf16", { cpuKernels: set });
      const error = relativeError(logits, referenceLogits(reference, reference.bf16.logits));
      const torchError = reference.bf16.torchRelativeError;
      assert.ok(error <= torchError, `relative error ${error}, torch's is ${torchError}`);
    });
  }
}
