import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { createDispatchPolicy } from "../../../src/manager/dispatch/dispatch.ts";
import type { DispatchCandidate } from "../../../src/manager/dispatch/policy.ts";
import { candidateOf } from "./support.ts";

function randomCandidates(random: Random): DispatchCandidate[] {
  return Array.from({ length: 1 + random.below(8) }, (_, i) =>
    candidateOf(`i${i}`, {
      load: [-Infinity, -3, -2.5, 0, 1, Infinity][random.below(6)],
      aheadBlocks: random.below(3),
      waitingRequests: random.below(3),
      dispatchedRequests: random.below(3),
    }));
}

const least = <T>(items: readonly T[], value: (item: T) => number): T[] => {
  const smallest = Math.min(...items.map(value));
  return items.filter((item) => value(item) === smallest);
};

Deno.test("balanced: the first of those with the fewest requests so far", () => {
  const random = new Random(1);
  for (let i = 0; i < 500; i++) {
    const candidates = randomCandidates(random);
    const expected = least(candidates, (candidate) => candidate.dispatchedRequests)[0];
    assert.equal(createDispatchPolicy("balanced", random).choose(candidates), expected.instanceId);
  }
});

Deno.test("load: the least ahead, then the smallest load, then the fewest requests so far", () => {
  const random = new Random(2);
  for (let i = 0; i < 500; i++) {
    const candidates = randomCandidates(random);
    const first = least(candidates, ({ aheadBlocks }) => aheadBlocks);
    const smallest = least(first, ({ load }) => load);
    const expected = least(smallest, ({ dispatchedRequests }) => dispatchedRequests)[0];
    assert.equal(createDispatchPolicy("load", random).choose(candidates), expected.instanceId);
  }
});

Deno.test("queue: one of the shortest queues, each as often, and the same for the same seed", () => {
  const random = new Random(3);
  for (let i = 0; i < 200; i++) {
    const candidates = randomCandidates(random);
    const shortest = least(candidates, ({ waitingRequests }) => waitingRequests);
    const chosen = (seed: number) => {
      const policy = createDispatchPolicy("queue", new Random(seed));
      return Array.from({ length: 60 }, () => policy.choose(candidates));
    };
    assert.deepEqual(chosen(i), chosen(i));
    const ids = new Set(chosen(i));
    assert.deepEqual([...ids].sort(), shortest.map(({ instanceId }) => instanceId).sort());
  }
});

Deno.test("rr: the ids in turn", () => {
  const policy = createDispatchPolicy("rr", new Random(0));
  const candidates = ["b", "a"].map((id) => candidateOf(id));
  assert.deepEqual([1, 2, 3].map(() => policy.choose(candidates)), ["a", "b", "a"]);
});
