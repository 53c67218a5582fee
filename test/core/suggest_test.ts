import assert from "node:assert/strict";
import { didYouMean, editDistance, nearest } from "../../src/core/suggest.ts";
import { Random } from "../../src/core/random.ts";

Deno.test("edit distance counts a swap of neighbours once", () => {
  assert.equal(editDistance("", "abc"), 3);
  assert.equal(editDistance("port", "port"), 0);
  assert.equal(editDistance("prot", "port"), 1);
  assert.equal(editDistance("kitten", "sitting"), 3);
});

Deno.test("edit distance is symmetric and bounded by the longer word", () => {
  const random = new Random(7);
  const word = () => Array.from({ length: random.below(8) }, () => "abc"[random.below(3)]).join("");
  for (let i = 0; i < 500; i++) {
    const [a, b] = [word(), word()];
    const distance = editDistance(a, b);
    assert.equal(distance, editDistance(b, a));
    assert.equal(distance === 0, a === b);
    assert.ok(distance <= Math.max(a.length, b.length));
    assert.ok(distance >= Math.abs(a.length - b.length));
  }
});

Deno.test("only near names are suggested", () => {
  assert.equal(nearest("srve", ["bench", "serve"]), "serve");
  assert.equal(nearest("banana", ["bench", "serve"]), null);
  assert.equal(nearest("SERVER.port", ["SERVER.HOST", "SERVER.PORT"]), "SERVER.PORT");
  assert.equal(nearest("7", ["8", "16"]), null);
  assert.equal(didYouMean("srve", ["serve"]), "; did you mean serve?");
  assert.equal(didYouMean("banana", ["serve"]), "");
});
