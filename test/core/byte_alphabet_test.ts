import assert from "node:assert/strict";
import { byteCharacters } from "../../src/core/byte_alphabet.ts";

Deno.test("every byte has a visible character of its own", () => {
  const characters = byteCharacters();
  assert.equal(characters.length, 256);
  assert.equal(new Set(characters).size, 256);
  for (const character of characters) assert.match(character, /^[^\s\p{C}]$/u);
});

Deno.test("the characters that vocabularies use: Ġ for a space, Ċ for a newline", () => {
  const characters = byteCharacters();
  const byCode = {
    0: "Ā",
    0x0a: "Ċ",
    0x20: "Ġ",
    0x41: "A",
    0x7f: "ġ",
    0xa0: "ł",
    0xad: "Ń",
    0xff: "ÿ",
  };
  for (const [byte, character] of Object.entries(byCode)) {
    assert.equal(characters[Number(byte)], character);
  }
});
