import assert from "node:assert/strict";
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { Random } from "../../../src/core/random.ts";
import { SegmentEncoder } from "../../../src/frontend/encoding/segment_encoder.ts";
import { createTokenizer } from "../../../src/frontend/tokenizer.ts";
import { splitIntoWords } from "../../../src/frontend/word_split.ts";
import { byteTokenizerConfig, byteTokenizerJson } from "../../../src/model/byte_tokenizer.ts";
import { fixtureNames, readFixture } from "../fixtures.ts";

const tokenizers: [name: string, json: Record<string, unknown>, config: Record<string, unknown>][] =
  [
    ...fixtureNames.map((name): typeof tokenizers[number] => [
      name,
      readFixture(name, "tokenizer.json"),
      readFixture(name, "tokenizer_config.json"),
    ]),
    ["byte", byteTokenizerJson(), byteTokenizerConfig(4096)],
  ];

/** What a text may be made of: words, white space of every kind, contractions, marks, added tokens. */
function pieces(json: Record<string, unknown>): string[] {
  const added = (json.added_tokens as { content: string }[]).map(({ content }) => content);
  return [
    ...[
      "the ",
      "quick",
      " brown",
      " a b c",
      "it's",
      " we'LL go",
      "x'",
      "'s y",
      " I'm",
      "e\u0301 o",
      "é",
    ],
    ...[
      "\n",
      "\n\n",
      " \n x",
      "\t",
      "   ",
      " ",
      "a  b",
      "\u00a0c",
      "\u3000",
      "\r\n",
      "word word word ",
    ],
    ...[
      "123 456",
      "1 a",
      "!? ",
      "...\n",
      "{ foo }",
      "你好",
      "。",
      "мир и ",
      "😀 ",
      "\u0345a b",
      "▁",
      " ▁a",
      "한",
    ],
    ...added,
    ...added.flatMap((token) => [`${token} a`, `b ${token}`, ` ${token} `]),
  ];
}

function randomText(random: Random, from: readonly string[], length: number): string {
  let text = "";
  while (text.length < length) text += from[random.below(from.length)];
  return text;
}

for (const [name, json, config] of tokenizers) {
  const { segments } = createTokenizer({ tokenizerJson: json, tokenizerConfig: config });
  const whole = new HubTokenizer({ ...json, pre_tokenizer: splitIntoWords(json) }, config);
  const encodeWhole = (text: string, add_special_tokens: boolean) =>
    whole.encode(text, { add_special_tokens }).ids.filter((id: number | undefined) =>
      id !== undefined
    );
  const encode = (text: string, addSpecialTokens: boolean) => [
    ...segments.join(
      segments.split(text).map((part) => segments.encode(part)),
      addSpecialTokens,
    ),
  ];

  Deno.test(`${name}: segments give the ids of the whole, for random texts`, () => {
    const random = new Random(11);
    const from = pieces(json);
    for (let round = 0; round < 25; round++) {
      const text = randomText(random, from, random.below(9_000));
      for (const special of [true, false]) {
        assert.deepEqual(encode(text, special), encodeWhole(text, special), JSON.stringify(text));
      }
    }
    for (const text of ["", " ", "a"]) {
      assert.deepEqual(encode(text, true), encodeWhole(text, true));
    }
  });

  Deno.test(`${name}: every cut that is allowed gives the ids of the whole`, () => {
    const random = new Random(12);
    const from = pieces(json).filter((piece) => !piece.includes("<") && !piece.includes("["));
    for (let round = 0; round < 300; round++) {
      const text = randomText(random, from, 12) + "q w" + randomText(random, from, 12);
      const cuts = [...text.matchAll(/[A-Za-z](?= [A-Za-z])/g)].map(({ index }) => index + 1);
      const parts = segments.split(text);
      assert.equal(parts.length, 1);
      const [{ place }] = parts;
      for (const cut of cuts) {
        const ids = [
          ...segments.encode({ text: text.slice(0, cut), place }),
          ...segments.encode({ text: text.slice(cut), place: "inner" }),
        ];
        // The tokenizer without a split into words is one that is never cut.
        if (name === "metaspace") break;
        assert.deepEqual(ids, encodeWhole(text, false), JSON.stringify([text, cut]));
      }
    }
  });

  Deno.test(`${name}: two texts that begin alike have the same first segments`, () => {
    const random = new Random(13);
    const text = randomText(random, pieces(json), 20_000);
    const longer = segments.split(text + " and one more turn");
    const parts = segments.split(text);
    assert.deepEqual(longer.slice(0, parts.length - 3), parts.slice(0, -3));
  });
}

Deno.test("long English is cut into pieces of bounded length, unless a token may span words", () => {
  const text = "The quick brown fox jumps over the lazy dog. ".repeat(1000);
  for (const [name, json, config] of tokenizers) {
    const { segments } = createTokenizer({ tokenizerJson: json, tokenizerConfig: config });
    const longest = Math.max(
      ...segments.split(text).map((part) => part.text.length),
    );
    if (name === "metaspace") assert.equal(longest, text.length);
    else assert.ok(longest < 2_200, `${name}: ${longest}`);
  }
});

Deno.test("a tokenizer whose steps are not known to be local is never cut", () => {
  const json = readFixture("llama3", "tokenizer.json");
  const { pretokenizers } = json.pre_tokenizer;
  const [split, ...rest] = pretokenizers;
  const other = { ...split, pattern: { Regex: "\\S+ \\S+|\\s+|\\S+" } };
  const changed = { ...json, pre_tokenizer: { type: "Sequence", pretokenizers: [other, ...rest] } };
  const segments = new SegmentEncoder(changed, new HubTokenizer(changed, {}));
  assert.equal(segments.split("one two ".repeat(2000)).length, 1);
});
