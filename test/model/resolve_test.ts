import assert from "node:assert/strict";
import { makeModel, parseMakeModelArgs } from "../../scripts/make_model.ts";
import { type ModelOptions, openWeights, resolveModel } from "../../src/model/resolve.ts";
import { openByReading } from "../../src/model/safetensors.ts";

const defaults: ModelOptions = {
  model: null,
  revision: null,
  downloadDir: null,
  loadFormat: "auto",
  dtype: "auto",
  maxModelLen: null,
  seed: 0,
};

const directory = Deno.makeTempDirSync();
globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));

/** Resolves a made model whose config.json has these changes. */
function resolve(changes: Record<string, unknown> = {}, options: Partial<ModelOptions> = {}) {
  const args = ["--out", directory, "--family", "mistral", "--dtype", "bf16"];
  makeModel(parseMakeModelArgs(args));
  const path = `${directory}/config.json`;
  const config = JSON.parse(Deno.readTextFileSync(path));
  Deno.writeTextFileSync(path, JSON.stringify({ ...config, ...changes }));
  return resolveModel({ ...defaults, model: directory, ...options });
}

Deno.test("resolve: without --model the built-in llumnix-story is served, with a warning", () => {
  const model = resolveModel(defaults);
  assert.equal(model.name, "llumnix-story");
  assert.equal(model.identity, "llumnix-story");
  assert.match(model.directory!, /\/llumnix-story$/);
  assert.equal(model.dtype, "bfloat16");
  assert.deepEqual(model.warnings, [
    "No --model was given: serving the built-in llumnix-story, a very small model that tells short " +
    "stories and does sums.",
  ]);
  const named = resolveModel({ ...defaults, model: "llumnix-story" });
  assert.deepEqual(named, { ...model, warnings: [] });
});

Deno.test("resolve: llumnix-tiny needs no files", () => {
  const model = resolveModel({ ...defaults, model: "llumnix-tiny" });
  assert.equal(model.name, "llumnix-tiny");
  assert.equal(model.directory, null);
  assert.equal(model.dtype, "float32");
  assert.equal(model.maxModelLen, 4096);
  assert.deepEqual(model.eosTokenIds, [257, 260]);
  assert.deepEqual(model.warnings, []);
});

Deno.test("resolve: a directory", () => {
  const model = resolve();
  assert.equal(model.name, directory);
  assert.equal(model.maxModelLen, 8192);
  assert.equal(model.dtype, "bfloat16");
  assert.deepEqual(model.warnings, []);
  const weights = openWeights(model, defaults, openByReading);
  assert.equal(weights.description, "1 safetensors file");
  weights.close();
});

Deno.test("resolve: --dtype", () => {
  const dtypes = ["auto", "half", "float16", "bfloat16", "float", "float32"] as const;
  assert.deepEqual(
    dtypes.map((dtype) => resolve({}, { dtype }).dtype),
    ["bfloat16", "float16", "float16", "bfloat16", "float32", "float32"],
  );
  assert.equal(resolve({ torch_dtype: "float32" }).dtype, "float32");
});

Deno.test("resolve: --max-model-len", () => {
  assert.equal(resolve({}, { maxModelLen: 100 }).maxModelLen, 100);
  assert.throws(() => resolve({}, { maxModelLen: 8193 }), {
    name: "UsageError",
    message: "--max-model-len 8193 is more than the 8192 tokens for which the model is made " +
      "(max_position_embeddings in its config.json). Use 8192 or less.",
  });
  const stretched = { rope_scaling: { type: "linear", factor: 2 } };
  assert.equal(resolve(stretched, { maxModelLen: 16384 }).maxModelLen, 16384);
});

Deno.test("resolve: a sliding window limits the length", () => {
  const model = resolve({ sliding_window: 4096 });
  assert.equal(model.maxModelLen, 4096);
  assert.match(model.warnings[0], /sliding window of 4096 tokens .* sequences are limited to 4096/);
  assert.deepEqual(resolve({ sliding_window: 4096 }, { maxModelLen: 4096 }).warnings, []);
  assert.deepEqual(resolve({ sliding_window: 8192 }).warnings, []);
  assert.throws(() => resolve({ sliding_window: 4096 }, { maxModelLen: 5000 }), {
    name: "UsageError",
    message: "--max-model-len 5000 is more than the model's sliding window of 4096 tokens, and " +
      "attention over a sliding window is not supported. Use 4096 or less.",
  });
});

Deno.test("resolve: end tokens of generation_config.json come before config.json's", () => {
  assert.deepEqual(resolve({ eos_token_id: 7 }).eosTokenIds, [257, 260]);
  Deno.removeSync(`${directory}/generation_config.json`);
  assert.deepEqual(resolveModel({ ...defaults, model: directory }).eosTokenIds, [7]);
});

Deno.test("resolve: --load-format dummy needs only config.json, and warns", () => {
  const model = resolve({}, { loadFormat: "dummy" });
  Deno.removeSync(`${directory}/model.safetensors`);
  const options: ModelOptions = { ...defaults, loadFormat: "dummy", seed: 9 };
  assert.equal(openWeights(model, options, openByReading).description, "random weights (seed 9)");
  assert.deepEqual(model.warnings, [
    "--load-format dummy: the weights are random; the output has no meaning.",
  ]);
  assert.throws(() => openWeights(model, defaults, openByReading), /has no weights/);
});

Deno.test("resolve: what is not a model is refused", () => {
  const at = (model: string) => () => resolveModel({ ...defaults, model });
  assert.throws(at("/absent/model"), {
    name: "ModelError",
    message:
      /^Model directory \/absent\/model does not exist\. Expected a directory in Hugging Face/,
  });
  const other = `${directory}/other`;
  Deno.mkdirSync(other);
  assert.throws(at(other), {
    name: "ModelError",
    message: `${other} is not a model: it has no config.json (it holds: nothing). Expected a ` +
      `directory in Hugging Face layout: config.json, *.safetensors, tokenizer.json.`,
  });
  Deno.writeTextFileSync(`${other}/weights.gguf`, "");
  assert.throws(at(other), /it holds: weights.gguf/);
  Deno.mkdirSync(`${other}/config.json`);
  assert.throws(at(other), { name: "ModelError", message: /^Cannot read .*config.json: / });
  Deno.removeSync(`${other}/config.json`);
  Deno.writeTextFileSync(`${other}/config.json`, "{");
  assert.throws(at(other), { name: "ModelError", message: /config.json is not JSON: / });
  Deno.writeTextFileSync(
    `${other}/config.json`,
    '{"architectures": ["T5ForConditionalGeneration"]}',
  );
  assert.throws(at(other), {
    name: "ModelError",
    message: `Model architecture T5ForConditionalGeneration is not supported ` +
      `(${other}/config.json). Supported architectures: LlamaForCausalLM, MistralForCausalLM, ` +
      `Qwen2ForCausalLM, Qwen3ForCausalLM.`,
  });
});
