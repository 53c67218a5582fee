import assert from "node:assert/strict";
import { PrefillPieces } from "../../../src/instance/engine/prefill_pieces.ts";

Deno.test("PrefillPieces: without a limit prompts are never cut", () => {
  const pieces = new PrefillPieces(Infinity);
  pieces.note("prefill", 10, 10_000);
  assert.equal(pieces.maxTokens(true), Infinity);
});

Deno.test("PrefillPieces: where nobody waits a piece is as long as it may be", () => {
  const pieces = new PrefillPieces(512);
  pieces.note("prefill", 100, 1_000);
  assert.equal(pieces.maxTokens(false), 512);
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

Deno.test("PrefillPieces: a slow processor still computes a few tokens at a time", () => {
  const pieces = new PrefillPieces(512);
  pieces.note("prefill", 10, 10_000);
  assert.equal(pieces.maxTokens(true), 16);
  assert.equal(new PrefillPieces(8).maxTokens(true), 8);
});
