import assert from "node:assert/strict";
import { pauseMs } from "../../../src/kv/transfer/pace.ts";

Deno.test("pace: a background transfer copies for a thirty-second of the time", () => {
  assert.equal(pauseMs({ tookMs: 0.4, pieces: 10, leftMs: 5_000 }), 31 * 0.4);
});

Deno.test("pace: nothing follows, nothing is waited for", () => {
  assert.equal(pauseMs({ tookMs: 1, pieces: 0, leftMs: 5_000 }), 0);
});

Deno.test("pace: what can be copied before the deadline is", () => {
  const transfers = [[100, 1], [1_000, 1], [2_400, 1], [4_900, 1], [10, 100], [10, 490], [
    1,
    2_000,
  ]];
  for (const [pieces, tookMs] of transfers) {
    let leftMs = 5_000;
    for (let i = 0; i < pieces; i++) {
      leftMs -= tookMs;
      leftMs -= pauseMs({ tookMs, pieces: pieces - 1 - i, leftMs });
    }
    assert.ok(leftMs >= 0, `${pieces} pieces of ${tookMs} ms each are late by ${-leftMs} ms`);
  }
});

Deno.test("pace: what is late does not pause", () => {
  assert.equal(pauseMs({ tookMs: 1, pieces: 5, leftMs: -1 }), 0);
});
