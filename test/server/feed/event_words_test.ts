import assert from "node:assert/strict";
import type { ClusterEvent } from "../../../src/core/protocol/monitoring.ts";
import { EventSums, sentenceFor } from "../../../src/server/feed/event_words.ts";
import { moved } from "./_fake_cluster.ts";

const textFor = (event: ClusterEvent) => sentenceFor(event)?.text;

Deno.test("what happens to instances is told at once", () => {
  assert.equal(textFor({ type: "scaled", change: -1 }), "Scaling removes 1 instance");
  assert.equal(textFor({ type: "scaled", change: 2 }), "Scaling adds 2 instances");
  const reason = `killed\n  by ${"x".repeat(300)}`;
  const text = textFor({ type: "instance_lost", instanceId: "a", reason })!;
  assert.match(text, /^a died: killed by x+…$/);
  assert.ok(text.length < 220);
  assert.equal(textFor(moved), undefined);
});

Deno.test("what happens often is summed up", () => {
  const sums = new EventSums();
  assert.deepEqual(sums.take(), []);
  sums.add(moved);
  assert.deepEqual(sums.take(), [
    { kind: "move", text: "1 request moved from a to b; downtime 2.5 ms" },
  ]);
  for (const destinationId of ["b", "b", "c", "d", "e"]) sums.add({ ...moved, destinationId });
  sums.add({ ...moved, outcome: "aborted_destination", reason: "no room" });
  sums.add({ ...moved, outcome: "nothing" });
  sums.add({ type: "preempted", instanceId: "a", count: 3 });
  sums.add({ type: "resumed", requestId: "r", reason: "" });
  assert.deepEqual(sums.take().map(({ text }) => text), [
    "5 requests moved: 2 from a to b, 1 from a to c, 1 from a to d, 1 between others; " +
    "worst downtime 2.5 ms",
    "1 migration failed from a to b: no room",
    "3 requests were preempted on a: the KV cache was full",
    "1 request of a lost instance goes on elsewhere",
  ]);
  assert.deepEqual(sums.take(), []);
});
