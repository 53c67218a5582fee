import assert from "node:assert/strict";
import { tokenTimeoutMs } from "../../../src/executor/cpu/step_time.ts";
import { parseModelConfig } from "../../../src/model/config.ts";

/** By layers, heads, keys' and values' heads, hidden and intermediate size. */
function llama(layers: number, heads: number, kvHeads: number, hidden: number, between: number) {
  return parseModelConfig({
    architectures: ["LlamaForCausalLM"],
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    hidden_size: hidden,
    intermediate_size: between,
    vocab_size: 32_000,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    torch_dtype: "bfloat16",
  }, "config.json");
}

const large = llama(32, 32, 32, 4096, 11_008); // 7B
const small = llama(30, 9, 3, 576, 1_536); // 135M

Deno.test("token timeout: a large model on two slow cores has its time, a small one hangs soon", () => {
  // Without native kernels a token of 7B takes 0.25 s where others use the cores as well.
  const largeMs = tokenTimeoutMs(large, 2048, 2);
  assert.ok(largeMs >= 1_500 && largeMs < 3_000, `${largeMs} ms`);
  const smallMs = tokenTimeoutMs(small, 2048, 2);
  assert.ok(smallMs >= 20 && smallMs < 60, `${smallMs} ms`);
});

Deno.test("token timeout: instances that share a host have more time, and so have long contexts", () => {
  const msOf = (maxModelLen: number, cores: number) => tokenTimeoutMs(small, maxModelLen, cores);
  assert.ok(Math.abs(msOf(2048, 0.5) - 4 * msOf(2048, 2)) <= 4);
  // At 32,768 tokens attention is most of the work.
  assert.ok(msOf(32_768, 2) > 3 * msOf(2048, 2));
});
