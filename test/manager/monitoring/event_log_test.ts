import assert from "node:assert/strict";
import { MAX_EVENTS_PER_REPLY, MAX_KEPT_EVENTS } from "../../../src/core/protocol/monitoring.ts";
import { EventLog } from "../../../src/manager/monitoring/event_log.ts";

function logOf(count: number, startedMs = 1): EventLog {
  const log = new EventLog(startedMs);
  for (let i = 1; i <= count; i++) log.add({ type: "instance_kept", instanceId: `i${i}` }, i);
  return log;
}

const sequences = (reply: ReturnType<EventLog["read"]>) =>
  reply.events.map(({ sequence }) => sequence);

Deno.test("event log: a reader gets what came after the event it knows", () => {
  const log = logOf(3);
  const first = log.read({ after: 1 });
  assert.deepEqual(sequences(first), [2, 3]);
  assert.deepEqual(first.events[0], {
    sequence: 2,
    atMs: 2,
    type: "instance_kept",
    instanceId: "i2",
  });
  assert.deepEqual([first.next, first.numDropped, first.hasMore], [3, 0, false]);
  assert.deepEqual(log.read({ after: first.next }).events, []);
});

Deno.test("event log: null asks for the number of the last event alone", () => {
  const reply = logOf(5).read({ after: null });
  assert.deepEqual([reply.events.length, reply.next, reply.numDropped], [0, 5, 0]);
});

Deno.test("event log: a slow reader learns how many events it missed", () => {
  const log = logOf(MAX_KEPT_EVENTS + 10);
  const reply = log.read({ after: 3 });
  assert.equal(reply.numDropped, 7);
  assert.equal(reply.events[0].sequence, 11);
  assert.equal(reply.events.length, MAX_EVENTS_PER_REPLY);
  assert.equal(reply.hasMore, true);
});

Deno.test("event log: reading on reaches the end without a gap", () => {
  const log = logOf(MAX_EVENTS_PER_REPLY + 5);
  const first = log.read({ after: 0 });
  const second = log.read({ after: first.next });
  const all = [...sequences(first), ...sequences(second)];
  assert.deepEqual(all, Array.from({ length: MAX_EVENTS_PER_REPLY + 5 }, (_, i) => i + 1));
  assert.equal(second.hasMore, false);
});

Deno.test("event log: another manager counts anew", () => {
  const reply = logOf(4, 200).read({ after: 1000, managerStartedMs: 100 });
  assert.deepEqual(sequences(reply), [1, 2, 3, 4]);
  assert.equal(reply.managerStartedMs, 200);
});

Deno.test("event log: a number from the future is taken for the last one", () => {
  const reply = logOf(4).read({ after: 1e15, managerStartedMs: 1 });
  assert.deepEqual([reply.events.length, reply.next, reply.numDropped], [0, 4, 0]);
});
