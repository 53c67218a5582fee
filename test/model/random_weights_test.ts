import assert from "node:assert/strict";
import { tinyModel } from "../../src/model/builtin.ts";
import { parseModelConfig } from "../../src/model/config.ts";
import { randomTensor, RandomWeights } from "../../src/model/random_weights.ts";
import { allTensors, decoderSpec } from "../../src/model/structure.ts";
import { convertTensor, tensorValues } from "../../src/model/tensor.ts";

const spec = { name: "w", shape: [300, 400] };

Deno.test("random weights: mean and deviation as asked, values nearly normal", () => {
  const values = tensorValues(randomTensor(spec, "float32", 1, 0.5, 2), "float32");
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
  assert.ok(Math.abs(mean - 0.5) < 0.02, `mean ${mean}`);
  assert.ok(Math.abs(Math.sqrt(variance) - 2) < 0.02, `deviation ${Math.sqrt(variance)}`);
  const within = values.filter((x) => Math.abs(x - mean) < 2).length / values.length;
  assert.ok(Math.abs(within - 0.6827) < 0.02, `${within} within one deviation`);
  const product = values.slice(1).reduce((sum, x, i) => sum + (x - mean) * (values[i] - mean), 0);
  assert.ok(Math.abs(product / values.length / variance) < 0.02, "neighbours do not correlate");
});

Deno.test("random weights: pure in seed and name, types agree by rounding", () => {
  const exact = randomTensor(spec, "float32", 1, 0, 1);
  assert.deepEqual(randomTensor(spec, "float32", 1, 0, 1).bytes, exact.bytes);
  assert.notDeepEqual(randomTensor(spec, "float32", 2, 0, 1).bytes, exact.bytes);
  assert.notDeepEqual(randomTensor({ ...spec, name: "v" }, "float32", 1, 0, 1).bytes, exact.bytes);
  for (const dtype of ["float16", "bfloat16"] as const) {
    assert.deepEqual(randomTensor(spec, dtype, 1, 0, 1).bytes, convertTensor(exact, dtype).bytes);
  }
});

Deno.test("random weights: the same on every machine", async () => {
  const config = parseModelConfig(tinyModel().config, "builtin");
  const source = new RandomWeights(config, "float32", 0);
  const bytes = allTensors(decoderSpec(config)).map((spec) => source.read(spec).bytes);
  const all = new Uint8Array(await new Blob(bytes as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  assert.equal(digest.toHex().slice(0, 16), "46a2db57dc8d02ac");
});
