import assert from "node:assert/strict";
import { splitIntoWords } from "../../src/frontend/word_split.ts";

const model = (...tokens: string[]) => ({
  type: "BPE",
  vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
});

Deno.test("splits where tokens have spaces only at their beginning", () => {
  const json = { model: model("▁a", "a", "▁▁", "▁▁b", "▁"), pre_tokenizer: null };
  assert.equal((splitIntoWords(json) as { type: string }).type, "Split");
  const metaspace = { type: "Metaspace", split: false };
  const both = splitIntoWords({ ...json, pre_tokenizer: metaspace });
  assert.deepEqual((both as { pretokenizers: unknown[] }).pretokenizers[0], metaspace);
});

Deno.test("leaves alone what a split could change or would not help", () => {
  for (const token of ["a▁", "▁a▁b", "a▁b"]) {
    assert.equal(splitIntoWords({ model: model("▁", token), pre_tokenizer: null }), null, token);
  }
  const unigram = { model: { type: "Unigram", vocab: [["▁", 0]] }, pre_tokenizer: null };
  assert.equal(splitIntoWords(unigram), null);
  const split = { type: "Metaspace", split: true };
  assert.equal(splitIntoWords({ model: model("▁"), pre_tokenizer: split }), split);
});
