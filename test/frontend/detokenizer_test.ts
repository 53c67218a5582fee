import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import type { Tokenizer } from "../../src/frontend/tokenizer.ts";
import { fixtureNames, fixtureTokenizer, isSpecial, readFixture } from "./fixtures.ts";

const texts = [
  "plain ASCII text, with punctuation; and numbers 12345.",
  "Überstraße naïve cœur Ελληνικά Русский",
  "你好，世界！𠮷野家 こんにちは 안녕하세요",
  "مرحبا بالعالم שלום עולם नमस्ते สวัสดี",
  "👨‍👩‍👧‍👦 🏳️‍🌈 🧑🏿‍🚀 🇫🇷 ❤️ e\u0301",
  "  leading\n\n\tand  runs ",
];

/** Encoded texts cut and spliced, and random ids: characters break at every place. */
function randomIds(tokenizer: Tokenizer, random: Random): number[] {
  const ids: number[] = [];
  while (ids.length < 40) {
    if (random.uniform() < 0.7) {
      const whole = tokenizer.encode(texts[random.below(texts.length)], { addSpecialTokens: true });
      const start = random.below(whole.length);
      ids.push(...whole.slice(start, start + 1 + random.below(12)));
    } else {
      ids.push(random.below(tokenizer.vocabSize + 2));
    }
  }
  return ids;
}

for (const name of fixtureNames) {
  const tokenizer = fixtureTokenizer(name);
  const vocab: Record<string, number> = readFixture(name, "tokenizer.json").model.vocab;
  const byteTokens = new Set(
    Object.keys(vocab).filter((token) => /^<0x..>$/.test(token)).map((token) => vocab[token]),
  );

  Deno.test(`${name}: pieces after a prompt join to what decoding at once adds`, () => {
    const random = new Random(11);
    for (let round = 0; round < 300; round++) {
      const ids = randomIds(tokenizer, random);
      const skipSpecialTokens = round % 2 === 0;
      const whole = tokenizer.decode(ids, { skipSpecialTokens });
      const cut = random.below(ids.length);
      // A run of byte tokens is one unit of decoding; the prompt's part of it is not seen again.
      const promptTokenIds = ids.slice(0, cut);
      const visible = promptTokenIds.filter((id) =>
        id < tokenizer.vocabSize && !(skipSpecialTokens && isSpecial(tokenizer, id))
      );
      if (byteTokens.has(visible.at(-1)!)) continue;
      const prompt = tokenizer.detokenizer({ skipSpecialTokens, promptTokenIds: [] });
      const promptText = promptTokenIds.map((id) => prompt.push(id)).join("");
      const output = tokenizer.detokenizer({ skipSpecialTokens, promptTokenIds });
      const pieces = ids.slice(cut).map((id) => output.push(id));
      for (const piece of pieces) assert.ok(piece.isWellFormed());
      assert.equal(promptText + pieces.join("") + output.flush(), whole);
    }
  });

  Deno.test(`${name}: whole characters come back whole, never with U+FFFD`, () => {
    for (const text of texts) {
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      const output = tokenizer.detokenizer({ skipSpecialTokens: true, promptTokenIds: ids });
      for (const id of ids) assert.ok(!output.push(id).includes("\ufffd"));
      assert.ok(!output.flush().includes("\ufffd"));
    }
  });
}

Deno.test("the first piece after a prompt keeps its space", () => {
  const tokenizer = fixtureTokenizer("llama2");
  const ids = tokenizer.encode("the request", { addSpecialTokens: false });
  const first = (promptTokenIds: number[]) =>
    tokenizer.detokenizer({ skipSpecialTokens: true, promptTokenIds }).push(ids[0]);
  assert.equal(first([])[0], "t");
  assert.equal(first([1])[0], "t", "only a special token before it");
  assert.equal(first([1, ids[1]])[0], " ");
});

Deno.test("a character that the prompt began is completed", () => {
  const tokenizer = fixtureTokenizer("llama3");
  const bytes = [...new TextEncoder().encode("𠮷")].map((byte) =>
    Array.from({ length: 256 }, (_, id) => id).find((id) =>
      tokenizer.display(id).bytes[0] === byte
    )!
  );
  for (let cut = 1; cut < 4; cut++) {
    const output = tokenizer.detokenizer({
      skipSpecialTokens: true,
      promptTokenIds: bytes.slice(0, cut),
    });
    assert.equal(bytes.slice(cut).map((id) => output.push(id)).join(""), "𠮷");
  }
});

Deno.test("bytes in any order decode as a text decoder decodes them", () => {
  const tokenizer = fixtureTokenizer("llama3");
  const idOfByte = new Map<number, number>();
  for (let id = 0; id < 256; id++) idOfByte.set(tokenizer.display(id).bytes[0], id);
  const random = new Random(5);
  // Bytes around the limits of well-formed sequences (Unicode table 3-7).
  const bytes = [0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1]
    .concat([0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff, 0xbb]);
  for (let round = 0; round < 2000; round++) {
    const sequence = Array.from({ length: 8 }, () => bytes[random.below(bytes.length)]);
    const output = tokenizer.detokenizer({ skipSpecialTokens: true, promptTokenIds: [] });
    const pieces = sequence.map((byte) => output.push(idOfByte.get(byte)!)).join("");
    const expected = new TextDecoder("utf-8", { ignoreBOM: true })
      .decode(Uint8Array.from(sequence));
    assert.equal(pieces + output.flush(), expected);
  }
});

Deno.test("a run of byte tokens with an ill-formed part is U+FFFD for each byte", () => {
  const tokenizer = fixtureTokenizer("llama2");
  const byteToken = (byte: number) => 3 + byte;
  const output = tokenizer.detokenizer({ skipSpecialTokens: true, promptTokenIds: [1, 300] });
  const run = [0xe2, 0x82, 0xac, 0xe2].map(byteToken);
  assert.deepEqual(run.map((id) => output.push(id)), ["", "", "", ""]);
  assert.match(output.push(300), /^\ufffd{4}[^\ufffd]/);
  const whole = [0xe2, 0x82, 0xac].map(byteToken);
  assert.equal(whole.map((id) => output.push(id)).join("") + output.flush(), "€");
});
