/** The table of src/manager/README.md, "Load", written a second time and compared. */
import assert from "node:assert/strict";
import type { InstanceInfo } from "../../../src/core/protocol/instance_info.ts";
import { Random } from "../../../src/core/random.ts";
import { dispatchLoad, migrationLoad } from "../../../src/manager/load/load_metric.ts";
import { loadStateOf, poolOf } from "../../../src/manager/load/load_state.ts";
import { randomInfo, randomInfos } from "../random_info.ts";
import { idleInfo } from "../support.ts";

function pageDispatchSteps(info: InstanceInfo): number {
  const requests = info.runningRequests + info.waitingRequests;
  if (requests === 0) return -Infinity;
  const available = info.freeBlocks - info.watermarkBlocks;
  return -(available - info.allWaitingBlocks) / requests;
}

function pageMigrationSteps(info: InstanceInfo): number {
  if (info.runningRequests === 0) return -Infinity;
  return -(info.freeBlocks - info.watermarkBlocks) / info.runningRequests;
}

function pageDefragSteps(info: InstanceInfo): number {
  const requests = info.runningRequests + (info.waitingRequests > 0 ? 1 : 0);
  if (requests === 0) return -Infinity;
  return -(info.freeBlocks - info.watermarkBlocks - info.firstWaitingBlocks) / requests;
}

Deno.test("load: the table of the README holds for any report", () => {
  const random = new Random(1);
  for (let i = 0; i < 2000; i++) {
    const info = randomInfo(random, "a");
    const state = loadStateOf(info);
    assert.equal(dispatchLoad("remaining_steps", state), pageDispatchSteps(info));
    assert.equal(migrationLoad("remaining_steps", state, false), pageMigrationSteps(info));
    assert.equal(migrationLoad("remaining_steps", state, true), pageDefragSteps(info));
    assert.equal(
      dispatchLoad("usage_ratio", state),
      (info.usedBlocks + info.allWaitingBlocks) / info.totalBlocks,
    );
    for (const enableDefrag of [false, true]) {
      assert.equal(
        migrationLoad("usage_ratio", state, enableDefrag),
        (info.usedBlocks + info.firstWaitingBlocks) / info.totalBlocks,
      );
    }
  }
});

Deno.test("load: the cases of the page in numbers", () => {
  const state = loadStateOf(idleInfo("a", {
    totalBlocks: 100,
    usedBlocks: 40,
    freeBlocks: 60,
    watermarkBlocks: 1,
    runningRequests: 4,
    waitingRequests: 2,
    firstWaitingBlocks: 4,
    allWaitingBlocks: 5,
  }));
  assert.equal(dispatchLoad("remaining_steps", state), -9);
  assert.equal(migrationLoad("remaining_steps", state, false), -14.75);
  assert.equal(migrationLoad("remaining_steps", state, true), -11);
  assert.equal(dispatchLoad("usage_ratio", state), 0.45);
  assert.equal(migrationLoad("usage_ratio", state, false), 0.44);
});

Deno.test("load: an instance that only has a queue is idle for migration, not with defrag", () => {
  const queued = idleInfo("a", { waitingRequests: 1, firstWaitingBlocks: 9, allWaitingBlocks: 9 });
  const state = loadStateOf(queued);
  assert.equal(dispatchLoad("remaining_steps", state), -90);
  assert.equal(migrationLoad("remaining_steps", state, false), -Infinity);
  assert.equal(migrationLoad("remaining_steps", state, true), -90);
});

Deno.test("load: idle is -inf in steps and 0 as a ratio; draining is inf in every metric", () => {
  const idle = loadStateOf(idleInfo("a"));
  const draining = loadStateOf(idleInfo("a"), { isDraining: true });
  for (const metric of ["remaining_steps", "usage_ratio", "virtual_usage"] as const) {
    const expected = metric === "usage_ratio" ? 0 : -Infinity;
    assert.equal(dispatchLoad(metric, idle), expected);
    assert.equal(dispatchLoad(metric, draining), Infinity);
    for (const enableDefrag of [false, true]) {
      assert.equal(migrationLoad(metric, idle, enableDefrag), expected);
      assert.equal(migrationLoad(metric, draining, enableDefrag), Infinity);
    }
  }
});

Deno.test("load: what is pending adds to the dispatch load alone, as if it waited", () => {
  const random = new Random(2);
  for (let i = 0; i < 500; i++) {
    const info = randomInfo(random, "a");
    const pending = { pendingRequests: 1 + random.below(3), pendingBlocks: random.below(20) / 4 };
    const state = loadStateOf(info, pending);
    const waiting = {
      ...info,
      waitingRequests: info.waitingRequests + pending.pendingRequests,
      allWaitingBlocks: info.allWaitingBlocks + pending.pendingBlocks,
    };
    assert.equal(
      dispatchLoad("usage_ratio", state),
      dispatchLoad("usage_ratio", loadStateOf(waiting)),
    );
    assert.equal(
      dispatchLoad("remaining_steps", state),
      dispatchLoad("remaining_steps", loadStateOf(waiting)),
    );
    assert.equal(
      migrationLoad("remaining_steps", state, true),
      migrationLoad("remaining_steps", loadStateOf(info), true),
    );
  }
});

Deno.test("load: no load is NaN, also of pools", () => {
  const random = new Random(3);
  for (let i = 0; i < 1000; i++) {
    const states = randomInfos(random, 1 + random.below(4)).map((info) =>
      loadStateOf(info, { isDraining: random.below(5) === 0 })
    );
    for (const state of [...states, poolOf(states)]) {
      for (const metric of ["remaining_steps", "usage_ratio", "virtual_usage"] as const) {
        assert.ok(!Number.isNaN(dispatchLoad(metric, state)));
        assert.ok(!Number.isNaN(migrationLoad(metric, state, true)));
      }
    }
  }
});
