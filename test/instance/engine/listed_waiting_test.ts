import assert from "node:assert/strict";
import { MAX_LISTED_WAITING } from "../../../src/core/protocol/instance_info.ts";
import { listedWaiting } from "../../../src/instance/engine/listed_waiting.ts";

/** @param queue tokens and arrival of each */
function listed(queue: readonly (readonly [tokens: number, arrivalMs: number])[]): string {
  const sequences = queue.map(([lengthTokens, arrivalMs], i) => ({
    requestId: `${i}`,
    lengthTokens,
    arrivalMs,
  }));
  return listedWaiting(sequences, 4).map(({ requestId }) => requestId).join(" ");
}

Deno.test("listed waiting: the head, and what is smaller than all before it", () => {
  assert.equal(listed([]), "");
  assert.equal(listed([[9, 1], [9, 2], [12, 3], [8, 4], [9, 5], [3, 6]]), "0 3 5");
});

Deno.test("listed waiting: also what is older than those before it, which outrank it", () => {
  assert.equal(listed([[5, 7], [6, 8], [9, 1], [9, 2], [8, 3]]), "0 2 4");
});

Deno.test("listed waiting: looks at the first of the queue only", () => {
  const queue = Array.from({ length: 2 * MAX_LISTED_WAITING }, (_, i) => [1000 - i, i] as const);
  assert.equal(listed(queue).split(" ").length, MAX_LISTED_WAITING);
});
