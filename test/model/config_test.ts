import assert from "node:assert/strict";
import { ModelError } from "../../src/core/errors.ts";
import { parseModelConfig } from "../../src/model/config.ts";

/** config.json of Llama-3.1-8B, shortened. */
const llama3 = {
  architectures: ["LlamaForCausalLM"],
  vocab_size: 128256,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  max_position_embeddings: 131072,
  rope_theta: 500000,
  rope_scaling: {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
    rope_type: "llama3",
  },
  tie_word_embeddings: false,
  attention_bias: false,
  torch_dtype: "bfloat16",
  bos_token_id: 128000,
  eos_token_id: [128001, 128008, 128009],
  unknown_field: { is: "ignored" },
};

function parse(changes: Record<string, unknown>) {
  return parseModelConfig({ ...llama3, ...changes }, "config.json");
}

/** The message with which a changed config is refused. */
function refusal(changes: Record<string, unknown>): string {
  try {
    parse(changes);
  } catch (error) {
    assert.ok(error instanceof ModelError);
    return error.message;
  }
  assert.fail("it was accepted");
}

Deno.test("config: Llama 3.1", () => {
  assert.deepEqual(parse({}), {
    architecture: "LlamaForCausalLM",
    vocabSize: 128256,
    hiddenSize: 4096,
    intermediateSize: 14336,
    numLayers: 32,
    numHeads: 32,
    numKvHeads: 8,
    headDim: 128,
    rmsNormEps: 1e-5,
    rope: {
      theta: 500000,
      scaling: {
        type: "llama3",
        factor: 8,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositions: 8192,
      },
    },
    maxPositionEmbeddings: 131072,
    slidingWindow: null,
    tieWordEmbeddings: false,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    dtype: "bfloat16",
    eosTokenIds: [128001, 128008, 128009],
  });
});

Deno.test("config: the older Llama's defaults", () => {
  const config = parse({
    num_key_value_heads: undefined,
    rope_theta: undefined,
    rope_scaling: null,
    max_position_embeddings: 4096,
    torch_dtype: undefined,
    eos_token_id: 2,
  });
  assert.equal(config.numKvHeads, 32);
  assert.deepEqual(config.rope, { theta: 10000, scaling: null });
  assert.equal(config.dtype, "float32");
  assert.deepEqual(config.eosTokenIds, [2]);
});

Deno.test("config: rope_parameters of transformers 5", () => {
  const { rope } = parse({
    rope_theta: undefined,
    rope_scaling: undefined,
    rope_parameters: { rope_theta: 1000000, rope_type: "default" },
    dtype: "float16",
  });
  assert.deepEqual(rope, { theta: 1000000, scaling: null });
  const linear = parse({ rope_scaling: { type: "linear", factor: 2 } });
  assert.deepEqual(linear.rope.scaling, { type: "linear", factor: 2 });
});

Deno.test("config: what distinguishes the families", () => {
  const qwen2 = parse({ architectures: ["Qwen2ForCausalLM"], sliding_window: 4096 });
  assert.deepEqual([qwen2.qkvBias, qwen2.outputBias, qwen2.qkNorm], [true, false, false]);
  assert.equal(qwen2.slidingWindow, null, "use_sliding_window is not set");
  const qwen3 = parse({ architectures: ["Qwen3ForCausalLM"], head_dim: 64 });
  assert.deepEqual([qwen3.qkvBias, qwen3.headDim, qwen3.qkNorm], [false, 64, true]);
  const mistral = parse({ architectures: ["MistralForCausalLM"], sliding_window: 4096 });
  assert.equal(mistral.slidingWindow, 4096);
  const biased = parse({ attention_bias: true, mlp_bias: true });
  assert.deepEqual([biased.qkvBias, biased.outputBias, biased.mlpBias], [true, true, true]);
});

Deno.test("config: unsupported models are refused by name", () => {
  assert.equal(
    refusal({ architectures: ["GPTNeoXForCausalLM"] }),
    "Model architecture GPTNeoXForCausalLM is not supported (config.json). Supported " +
      "architectures: LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM.",
  );
  assert.match(refusal({ architectures: undefined }), /names no architecture/);
  assert.match(refusal({ hidden_act: "gelu" }), /activation gelu is not supported; only silu is/);
  assert.match(
    refusal({ quantization_config: { bits: 4 } }),
    /quantised weights .* are supported only as "quant_method": "fp8"/,
  );
  assert.match(refusal({ torch_dtype: "float8_e4m3fn" }), /weights of type float8_e4m3fn are not/);
  for (const type of ["dynamic", "yarn", "longrope"]) {
    assert.equal(
      refusal({ rope_scaling: { type, factor: 4 } }),
      `config.json: RoPE scaling of type ${type} is not supported. Supported: default, linear, ` +
        `llama3.`,
    );
  }
});

Deno.test("config: fields that are missing or wrong are named", () => {
  assert.match(refusal({ hidden_size: undefined }), /hidden_size: .*expected number/);
  assert.match(refusal({ num_hidden_layers: -1 }), /num_hidden_layers/);
  assert.match(refusal({ vocab_size: "many" }), /vocab_size: .*expected number, received string/);
  assert.match(refusal({ num_key_value_heads: 5 }), /\(32\) must be a multiple of .* \(5\)/);
  assert.match(refusal({ hidden_size: 4100 }), /head size must be an even integer, found 128.125/);
  assert.match(refusal({ rope_scaling: { type: "linear" } }), /type linear needs "factor"/);
  for (const json of [null, 5, "x", []]) {
    assert.throws(() => parseModelConfig(json, "config.json"), ModelError);
  }
});
