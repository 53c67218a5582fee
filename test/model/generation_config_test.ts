import assert from "node:assert/strict";
import { parseGenerationConfig } from "../../src/model/generation_config.ts";

const parse = (json: unknown) => parseGenerationConfig(json, "generation_config.json");

Deno.test("generation config: end tokens, one or several", () => {
  assert.deepEqual(parse({ eos_token_id: 2 }).eosTokenIds, [2]);
  assert.deepEqual(parse({ eos_token_id: [1, 5] }).eosTokenIds, [1, 5]);
  assert.equal(parse({}).eosTokenIds, null);
});

Deno.test("generation config: default sampling", () => {
  const { defaultSampling } = parse({
    do_sample: true,
    temperature: 0.7,
    top_p: 0.8,
    top_k: 20,
    repetition_penalty: 1.05,
    transformers_version: "4.37.0",
  });
  assert.deepEqual(defaultSampling, {
    temperature: 0.7,
    topP: 0.8,
    topK: 20,
    repetitionPenalty: 1.05,
  });
  assert.deepEqual(parse({ top_k: 0 }).defaultSampling, { topK: -1 });
});

Deno.test("generation config: wrong fields are named", () => {
  assert.throws(() => parse({ temperature: "hot" }), {
    name: "ModelError",
    message: "generation_config.json is not a usable generation config: temperature: " +
      "Invalid input: expected number, received string.",
  });
});
