import assert from "node:assert/strict";
import type { MigrationReport } from "../../../src/core/protocol/migration.ts";
import { ManagedInstance } from "../../../src/manager/fleet/managed_instance.ts";
import type { Peer } from "../../../src/bus/bus.ts";
import { idleInfo, registrationOf } from "../support.ts";

const registration = registrationOf("a", "inproc:a");

/** A connection that remembers what it was told. */
function recordingPeer(): { readonly peer: Peer; readonly told: string[] } {
  const told: string[] = [];
  const peer = { isOpen: true, notify: (method: string) => told.push(method) };
  return { peer: peer as unknown as Peer, told };
}

function servingInstance(): { readonly instance: ManagedInstance; readonly told: string[] } {
  const instance = new ManagedInstance("a", "both");
  const { peer, told } = recordingPeer();
  instance.join({ instanceId: "a" }, peer);
  instance.register(registration, 5);
  return { instance, told };
}

Deno.test("managed instance: it starts, serves, stops and is lost, in this order and once", () => {
  const { instance, told } = servingInstance();
  assert.equal(new ManagedInstance("b", "both").phase, "starting");
  assert.equal(instance.phase, "serving");
  instance.register(registration, 9);
  assert.deepEqual([instance.phase, instance.servingSinceMs], ["serving", 5]);
  instance.askToStop();
  assert.deepEqual(told, ["shutdown"]);
  instance.register(registration, 9);
  assert.equal(instance.phase, "stopping", "a late registration does not bring it back");
  assert.equal(instance.markLost(), true);
  assert.equal(instance.markLost(), false, "it is lost once");
  instance.register(registration, 9);
  instance.askToStop();
  assert.equal(instance.phase, "lost");
  assert.deepEqual([instance.isServing, instance.isStaying, instance.isAvailable], [
    false,
    false,
    false,
  ]);
});

Deno.test("managed instance: of several causes of a drain the stronger one decides, and a removal stays one", () => {
  const { instance } = servingInstance();
  assert.equal(instance.beginDrain("scaling", true), true);
  assert.equal(instance.beginDrain("operator"), false, "it drains already");
  assert.deepEqual(instance.drain, { by: "operator", isRemoval: true });
  instance.beginDrain("scaling");
  assert.deepEqual(instance.drain, { by: "operator", isRemoval: true });
  assert.deepEqual([instance.isServing, instance.isStaying, instance.isAvailable], [
    true,
    false,
    false,
  ]);
  assert.deepEqual(instance.endDrain(), { by: "operator", isRemoval: true });
  assert.deepEqual([instance.drain, instance.isAvailable], [null, true]);
  assert.equal(instance.endDrain(), null);
});

Deno.test("managed instance: what its own process began ends only with the service", () => {
  const { instance, told } = servingInstance();
  instance.beginDrain("operator");
  instance.beginDrain("itself");
  instance.beginDrain("operator");
  assert.equal(instance.drain!.by, "itself");
  assert.equal(instance.endDrain(), null);
  assert.equal(instance.mayRejoin, false);
  assert.deepEqual(instance.overruleOwnDrain(), { by: "itself", isRemoval: false });
  assert.deepEqual(told, ["keep"]);
  assert.deepEqual([instance.drain, instance.mayRejoin], [null, true]);
  instance.beginDrain("operator");
  assert.equal(instance.overruleOwnDrain(), null);
  assert.equal(instance.isDraining, true, "an operator's drain goes on");
});

Deno.test("managed instance: a drain ends no more once the instance was asked to stop", () => {
  const { instance } = servingInstance();
  instance.beginDrain("scaling", true);
  instance.askToStop();
  assert.equal(instance.endDrain(), null);
  assert.equal(instance.isBeingRemoved, true);
});

Deno.test("managed instance: one that others start is a candidate until it serves", () => {
  const { peer } = recordingPeer();
  const isCandidate = (...join: Parameters<ManagedInstance["join"]>) => {
    const instance = new ManagedInstance("a", "both");
    instance.join(...join);
    const before = instance.isCandidate;
    instance.register(registration, 0);
    return [before, instance.isCandidate];
  };
  const instanceId = "a";
  assert.deepEqual(isCandidate({ instanceId, startedBy: "hand" }, peer), [true, false]);
  assert.deepEqual(isCandidate({ instanceId, startedBy: "api-server" }, peer), [true, false]);
  assert.deepEqual(isCandidate({ instanceId }, peer), [false, false]);
  const running = { instanceId, startedBy: "hand", isRunning: true } as const;
  assert.deepEqual(isCandidate(running, peer), [false, false]);
});

Deno.test("managed instance: a request that left is counted out once, whether a report or the answer comes first", () => {
  const reportOf = (leftMs?: number) => ({ leftMs, blocks: 5 }) as MigrationReport;
  const source = new ManagedInstance("source", "prefill");
  const destination = new ManagedInstance("destination", "decode");
  destination.takeInfo(idleInfo("destination"));
  const move = (...leftMs: (number | undefined)[]) => {
    source.takeInfo(idleInfo("source", { leavingRequests: 3, timestampMs: 100 }));
    source.noteMoved(leftMs.map(reportOf), destination);
    return source.info!.leavingRequests;
  };
  assert.equal(move(101), 2, "its report has yet to come");
  assert.equal(move(99), 3, "its report has come");
  assert.equal(move(90, 100, 110), 2, "it came between them");
  assert.equal(move(undefined), 2);
  assert.equal(move(101, 102, 103, 104), 0);
  assert.deepEqual([destination.info!.runningRequests, destination.info!.usedBlocks], [10, 50]);
});
