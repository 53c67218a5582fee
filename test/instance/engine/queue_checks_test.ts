import assert from "node:assert/strict";
import type { IncomingMigration } from "../../../src/instance/engine/incoming_migration.ts";
import { checkPlaces, checkQueues } from "../../../src/instance/engine/queue_checks.ts";
import type { Scheduler } from "../../../src/instance/engine/scheduler.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import { generateRequest } from "../support.ts";

function sequenceOf(id: string, status: Sequence["status"]): Sequence {
  const sequence = new Sequence(generateRequest(id, 3), 0);
  sequence.status = status;
  return sequence;
}

const schedulerOf = (parts: object) =>
  ({
    waiting: [],
    running: [],
    swapped: [],
    suspended: new Set(),
    keptPlaces: 0,
    ...parts,
  }) as unknown as Scheduler;

Deno.test("queue checks: every request is in the queue of its state, and in no other", () => {
  const a = sequenceOf("a", "waiting"), b = sequenceOf("b", "running");
  const requests = new Map([["a", a], ["b", b]]);
  checkQueues(schedulerOf({ waiting: [a], running: [b] }), requests);
  const check = (parts: object) => () => checkQueues(schedulerOf(parts), requests);
  assert.throws(check({ waiting: [a, b] }), /b is running but among the waiting/);
  assert.throws(check({ waiting: [a] }), /2 requests, but 1 in the queues/);
  assert.throws(check({ waiting: [a, a], running: [b] }), /2 requests, but 3 in the queues/);
  const other = sequenceOf("a", "waiting");
  assert.throws(check({ waiting: [other], running: [b] }), /a is waiting but among the waiting/);
});

Deno.test("queue checks: a place is kept for each that leaves with blocks or comes to run", () => {
  const leaving = sequenceOf("a", "suspended"), waited = sequenceOf("b", "suspended");
  leaving.blocks.push(1);
  const suspended = new Set([leaving, waited]);
  const incoming = [{ keepsPlace: true }, { keepsPlace: false }] as IncomingMigration[];
  checkPlaces(schedulerOf({ suspended, keptPlaces: 2 }), incoming);
  assert.throws(
    () => checkPlaces(schedulerOf({ suspended, keptPlaces: 3 }), incoming),
    /3 places kept for 1 outgoing and 1 incoming requests/,
  );
});
