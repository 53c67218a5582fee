/** The decoder of every kernel set against the operations that it is made of. */
import assert from "node:assert/strict";
import type { StorageType } from "../../ffi/cpu_kernels/kernels.ts";
import { kernelSetStates, loadCpuKernels } from "../../ffi/cpu_kernels/load.ts";
import { Random } from "../../src/core/random.ts";
import { DecoderCase } from "./decoder_case.ts";
import { DecoderReference } from "./decoder_reference.ts";
import { Arrays, sameBits } from "./kernel_reference.ts";

const createKernelWorker = () =>
  new Worker(new URL("./kernel_worker.ts", import.meta.url), { type: "module" });
const types: readonly StorageType[] = ["float32", "float16", "bfloat16"];
const maxRows = 48;

for (const { set, unavailable } of kernelSetStates()) {
  Deno.test({
    name: unavailable === null
      ? `${set} kernels: a decoder is its operations, to the bit`
      : `${set} kernels: a decoder is its operations, to the bit (not here: ${unavailable})`,
    ignore: unavailable !== null,
    fn: async () => {
      const kernels = await loadCpuKernels({ set, threads: 2, createKernelWorker });
      const arrays = new Arrays(kernels), random = new Random(1);
      for (const type of types) {
        for (const everything of [false, true]) {
          const model = new DecoderCase(kernels, random, type, everything);
          const { shape, weights } = model, width = shape.hiddenSize;
          const cache = model.cache(), cacheOfReference = model.cache();
          const decoder = kernels.decoder(shape, weights, cache, maxRows);
          const reference = new DecoderReference(
            kernels,
            shape,
            weights,
            cacheOfReference,
            maxRows,
          );
          // Prompts, a step of single tokens, one alone, and a mixed one.
          for (
            const batch of [
              model.batch([40, 3], [40, 3]),
              model.batch([41, 4], [1, 1]),
              model.batch([42], [1]),
              model.batch([43, 20, 5], [1, 20, 1]),
            ]
          ) {
            const actual = arrays.floats(decoder.forward(batch), batch.numTokens * width);
            const expected = arrays.floats(reference.forward(batch), batch.numTokens * width);
            assert.ok(expected.some((value) => value !== 0) && !expected.some(Number.isNaN));
            assert.ok(sameBits(actual, expected), `${type}, ${everything}, ${batch.numTokens}`);
          }
          const blocks = (view: typeof cache) => kernels.bytes(view.address, view.byteLength);
          assert.ok(sameBits(blocks(cache), blocks(cacheOfReference)), `${type}: the cache`);
        }
      }
      const model = new DecoderCase(kernels, random, "float32", false);
      const decoder = kernels.decoder(model.shape, model.weights, model.cache(), 4);
      assert.throws(() => decoder.forward(model.batch([5], [5])), /has 5 rows, expected 4 at most/);
      kernels.close();
    },
  });
}
