import assert from "node:assert/strict";
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { Random } from "../../../src/core/random.ts";
import { internalsOf } from "../../../src/frontend/encoding/hub_internals.ts";
import { LONG_WORD, LongWordEncoder } from "../../../src/frontend/encoding/long_word.ts";
import { fixtureNames, fixtureTokenizer, readFixture } from "../fixtures.ts";

for (const name of fixtureNames) {
  const json = readFixture(name, "tokenizer.json");
  const library = internalsOf(new HubTokenizer(json, readFixture(name, "tokenizer_config.json")));
  const encoder = new LongWordEncoder(json.model.merges);

  Deno.test(`${name}: merges as the library does`, () => {
    const random = new Random(5);
    const letters = [..."theiangrosdĠ▁ ,.é你😀"];
    for (let round = 0; round < 400; round++) {
      const kinds = 1 + random.below(letters.length);
      const word = Array.from({ length: 1 + random.below(120) }, () => letters[random.below(kinds)])
        .join("");
      assert.deepEqual(encoder.encode(word), library.model.bpe!(word), word);
    }
  });
}

Deno.test("a long word takes work and memory in proportion to its length", () => {
  const { model } = readFixture("llama3", "tokenizer.json");
  const encoder = new LongWordEncoder(model.merges);
  const lookups: number[] = [];
  for (const times of [1_000, 20_000]) {
    const before = encoder.lookups;
    encoder.encode("thequickbrownfox".repeat(times));
    lookups.push(encoder.lookups - before);
  }
  const [short, long] = lookups;
  assert.ok(
    short > 16_000 && long <= 20.1 * short,
    `${short} lookups, ${long} for 20 times the length`,
  );
});

Deno.test("a long word of a prompt is encoded without the library, and decodes to itself", () => {
  const tokenizer = fixtureTokenizer("llama3");
  const word = "thequickbrownfox".repeat(20_000);
  assert.ok(word.length > LONG_WORD);
  const ids = tokenizer.encode(word, { addSpecialTokens: false });
  assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), word);
});
