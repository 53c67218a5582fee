import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { jsonLimits, JsonScanner } from "../../src/server/json_scanner.ts";

const encoder = new TextEncoder();

/** Scans a text in pieces of the given size. */
function scan(text: string, pieceBytes = 1 << 16, limits = jsonLimits): JsonScanner {
  const scanner = new JsonScanner(limits);
  const bytes = encoder.encode(text);
  for (let i = 0; i < bytes.length; i += pieceBytes) {
    scanner.push(bytes.subarray(i, i + pieceBytes));
  }
  return scanner;
}

function keysOf(text: string, pieceBytes: number): string[] {
  const bytes = encoder.encode(text);
  return scan(text, pieceBytes).topLevelKeys.map(([start, end]) =>
    new TextDecoder().decode(bytes.subarray(start, end))
  );
}

const tooMuch: [name: string, text: string, message: RegExp][] = [
  ["empty prompts", `{"prompt":[${Array(1_300_000).fill("[]")}]}`, /more than 16384 arrays/],
  ["depth", "[".repeat(1_000_000), /more than 64 deep/],
  [
    "unknown keys",
    `{${Array.from({ length: 300_000 }, (_, i) => `"k${i}":1`)}}`,
    /an object of more than 1024 fields/,
  ],
  [
    "chat messages",
    `{"messages":[${Array(100_000).fill('{"role":"user","content":"x"}')}]}`,
    /more than 16384 (fields|arrays)/,
  ],
  ["token ids", `{"prompt":[${Array(1_900_000).fill(1)}]}`, /more than 262144 values/],
];

for (const [name, text, message] of tooMuch) {
  Deno.test(`too much structure is refused: ${name}`, () => {
    assert.throws(() => scan(text), message);
  });
}

Deno.test("what clients send is let through", () => {
  scan(`{"prompt":[${Array(131_072).fill(128_000)}]}`);
  scan(`{"messages":[${Array(4_096).fill('{"role":"user","content":"[[{{,,::"}')}]}`);
  scan(JSON.stringify({ prompt: '[{"":\\'.repeat(500_000) }));
});

Deno.test("keys of the outermost object are found, wherever the body is cut", () => {
  const random = new Random(7);
  const word = () =>
    Array.from({ length: random.below(5) }, () => '"\\{[:,a '[random.below(8)]).join("");
  for (let round = 0; round < 300; round++) {
    const value = Object.fromEntries(
      Array.from({ length: 1 + random.below(4) }, (_, i) => [
        `${i}${word()}`,
        [word(), { [word()]: word() }, 3][random.below(3)],
      ]),
    );
    const text = JSON.stringify(value);
    const expected = Object.keys(value).map((key) => JSON.stringify(key).slice(1, -1));
    assert.deepEqual(keysOf(text, 1 + random.below(9)), expected, text);
  }
});
