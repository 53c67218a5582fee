import assert from "node:assert/strict";
import type { ScalingOptions } from "../../../src/core/options.ts";
import type { DrainCause } from "../../../src/manager/fleet/drain.ts";
import { ManagedInstance } from "../../../src/manager/fleet/managed_instance.ts";
import { ScalingLoop } from "../../../src/manager/fleet/scaling_loop.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { idleInfo, managerOptions, registrationOf } from "../support.ts";

const scaling: ScalingOptions = {
  enableScaling: true,
  scalingInterval: 1,
  scalingPolicy: "avg_load",
  scaleUpThreshold: 10,
  scaleDownThreshold: 60,
  minInstances: 1,
  maxInstances: 4,
};

function serving(instanceId: string, usedBlocks: number): ManagedInstance {
  const instance = new ManagedInstance(instanceId, "both");
  instance.register(registrationOf(instanceId, `inproc:${instanceId}`), 0);
  const freeBlocks = 100 - usedBlocks;
  instance.takeInfo(idleInfo(instanceId, { usedBlocks, freeBlocks, runningRequests: 10 }));
  return instance;
}

/**
 * What the loop does about a full instance, beside one that drains to be removed.
 * @param room instances that could be started
 */
function relieve(by: DrainCause, room = Infinity): string[] {
  const clock = new VirtualClock();
  const full = serving("full", 95), draining = serving("draining", 10);
  draining.beginDrain(by, true);
  const done: string[] = [];
  new ScalingLoop({
    clock,
    options: managerOptions,
    scaling,
    instances: () => [full, draining],
    isSettled: () => true,
    room: () => room,
    onScale: (change) => done.push(`scale by ${change}`),
    add: () => done.push("add"),
    remove: ({ instanceId }) => done.push(`remove ${instanceId}`),
    keep: ({ instanceId }) => done.push(`keep ${instanceId}`),
  }).start();
  clock.step();
  return done;
}

Deno.test("scaling loop: the instance that scaling removes is kept when the load rises", () => {
  assert.deepEqual(relieve("scaling"), ["scale by 1", "keep draining"]);
});

Deno.test("scaling loop: an instance whose process or operator ends it cannot be kept, so one is added", () => {
  assert.deepEqual(relieve("itself"), ["scale by 1", "add"]);
  assert.deepEqual(relieve("operator"), ["scale by 1", "add"]);
});

Deno.test("scaling loop: no host has room, so nothing is added", () => {
  assert.deepEqual(relieve("operator", 0), []);
  assert.deepEqual(relieve("scaling", 0), ["scale by 1", "keep draining"]);
});
