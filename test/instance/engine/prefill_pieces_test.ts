import assert from "node:assert/strict";
import { PrefillPieces } from "../../../src/instance/engine/prefill_pieces.ts";

Deno.test("PrefillPieces: without a limit prompts are never cut", () => {
  const pieces = new PrefillPieces(Infinity);
  pieces.note("prefill", 10, 10_000);
  assert.equal(pieces.maxTokens(true), Infinity);
});

Deno.test("PrefillPieces: where nobody waits a piece is longer, but an abort waits for about a second", () => {
  const pieces = new PrefillPieces(512);
  pieces.note("prefill", 100, 100);
  assert.equal(pieces.maxTokens(false), 512);
  pieces.note("prefill", 512, 10_000, true);
  assert.equal(pieces.maxTokens(false, true), 51, "20 ms a token");
});

Deno.test("PrefillPieces: the first piece is short, later ones follow the measured rate", () => {
  const pieces = new PrefillPieces(512);
  assert.equal(pieces.maxTokens(true), 16);
  pieces.note("prefill", 16, 16);
  assert.equal(pieces.maxTokens(true), 150, "1 ms a token");
  pieces.note("decode", 4, 50);
  assert.equal(pieces.maxTokens(true), 200, "a decode step more");
  pieces.note("prefill", 100, 300);
  assert.equal(pieces.maxTokens(true), 100, "half way from 1 to 3 ms a token");
});

Deno.test("PrefillPieces: tokens that cost little beyond reading the weights come a few at a time", () => {
  const pieces = new PrefillPieces(512);
  pieces.note("decode", 1, 10_000);
  pieces.note("prefill", 1, 10_005);
  assert.equal(pieces.maxTokens(true), 16, "5 ms a token more");
});

Deno.test("PrefillPieces: where a token takes longer than a piece may, it is a piece of its own", () => {
  const pieces = new PrefillPieces(512);
  pieces.note("prefill", 16, 16_000);
  assert.equal(pieces.maxTokens(true), 1);
  assert.equal(new PrefillPieces(8).maxTokens(true), 8);
});

Deno.test("PrefillPieces: later pieces of a long prompt have a rate of their own", () => {
  const pieces = new PrefillPieces(512);
  pieces.note("prefill", 16, 16);
  assert.equal(pieces.maxTokens(true, true), 150, "as the first, until the second is known");
  pieces.note("prefill", 150, 1_500, true);
  assert.equal(pieces.maxTokens(true, true), 15, "far into the prompt: 10 ms a token");
  for (let short = 0; short < 20; short++) pieces.note("prefill", 16, 16);
  assert.equal(pieces.maxTokens(true, true), 15, "other prompts in between do not matter");
  assert.equal(pieces.maxTokens(true), 150, "nor do pieces matter to other prompts");
  pieces.begin();
  assert.equal(pieces.maxTokens(true, true), 150, "another long prompt");
});
