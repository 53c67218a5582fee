import assert from "node:assert/strict";
import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";
import { tinyModel } from "../../src/model/builtin.ts";

const { tokenizerJson, tokenizerConfig } = tinyModel();

Deno.test("byte tokenizer: any text survives a round trip, one token per byte", () => {
  const tokenizer = new Tokenizer(tokenizerJson, tokenizerConfig);
  for (
    const text of ["Hello, world!", "  two  spaces\n\tand tab", "\u0000\u007f", "héllo 世界 🙂"]
  ) {
    const { ids } = tokenizer.encode(text, { add_special_tokens: false });
    assert.deepEqual(Array.from(ids), Array.from(new TextEncoder().encode(text)));
    assert.equal(tokenizer.decode(ids), text);
  }
});

Deno.test("byte tokenizer: special tokens are single tokens, bos is added and skipped", () => {
  const tokenizer = new Tokenizer(tokenizerJson, tokenizerConfig);
  assert.deepEqual(Array.from(tokenizer.encode("a<|im_end|>").ids), [256, 97, 260]);
  assert.equal(tokenizer.decode([256, 97, 260], { skip_special_tokens: true }), "a");
  assert.equal(tokenizer.decode([97, 260], { skip_special_tokens: false }), "a<|im_end|>");
});

Deno.test("byte tokenizer: the chat template renders", () => {
  const text = new Template(tokenizerConfig.chat_template as string).render({
    bos_token: tokenizerConfig.bos_token,
    messages: [{ role: "user", content: "Hi" }],
    add_generation_prompt: true,
  });
  assert.equal(text, "<|bos|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
});
