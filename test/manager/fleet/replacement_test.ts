import assert from "node:assert/strict";
import { ModelError, UnavailableError } from "../../../src/core/errors.ts";
import { Replacement } from "../../../src/manager/fleet/replacement.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";

const LONG_MS = 60_000;

class World {
  readonly clock = new VirtualClock(0);
  missing = 0;
  isAnyLeft = true;
  /** What starts end with; null: they succeed. */
  error: Error | null = null;
  readonly startsMs: number[] = [];
  readonly pausesMs: number[] = [];
  readonly givenUp: string[] = [];
  readonly replacement = new Replacement({
    clock: this.clock,
    missing: () => this.missing,
    isAnyLeft: () => this.isAnyLeft,
    start: () => {
      this.startsMs.push(this.clock.nowMs());
      if (this.error) return Promise.reject(this.error);
      this.missing--;
      return Promise.resolve();
    },
    onFailure: (_, pauseMs) => this.pausesMs.push(pauseMs),
    onGiveUp: (reason) => this.givenUp.push(reason),
  });

  async pass(ms: number): Promise<void> {
    const endMs = this.clock.nowMs() + ms;
    this.clock.after(ms, () => {});
    await this.clock.runUntil(() => this.clock.nowMs() >= endMs);
  }
}

Deno.test("replacement: at once for what served well, after a pause for what did not", async () => {
  const world = new World();
  world.missing = 1;
  world.replacement.noteLoss(LONG_MS);
  await world.pass(1);
  assert.deepEqual(world.startsMs, [0]);
  world.missing = 1;
  world.replacement.noteLoss(100);
  await world.pass(1_000);
  assert.deepEqual(world.startsMs, [0, 501]);
});

Deno.test("replacement: starts all that are missing, and none that is not", async () => {
  const world = new World();
  world.missing = 3;
  world.replacement.noteLoss(LONG_MS);
  world.replacement.noteLoss(LONG_MS);
  await world.pass(100);
  assert.equal(world.startsMs.length, 3);
  world.replacement.noteLoss(LONG_MS);
  await world.pass(100);
  assert.equal(world.startsMs.length, 3);
});

Deno.test("replacement: while starts fail the pause doubles up to half a minute", async () => {
  const world = new World();
  world.missing = 1;
  world.error = new UnavailableError("no memory");
  world.replacement.noteLoss(LONG_MS);
  await world.pass(200_000);
  assert.deepEqual(world.pausesMs.slice(0, 9), [
    ...[500, 1_000, 2_000, 4_000, 8_000, 16_000],
    ...[30_000, 30_000, 30_000],
  ]);
  world.error = null;
  await world.pass(30_000);
  assert.equal(world.missing, 0);
  world.missing = 1;
  world.error = new UnavailableError("no memory");
  world.replacement.noteLoss(LONG_MS);
  await world.pass(1);
  assert.equal(world.pausesMs.at(-1), 500, "a success begins anew");
  assert.deepEqual(world.givenUp, [], "others serve");
});

Deno.test("replacement: starts that fail together count once", async () => {
  const world = new World();
  world.missing = 4;
  world.error = new UnavailableError("no memory");
  world.replacement.noteLoss(LONG_MS);
  await world.pass(100);
  assert.deepEqual(world.pausesMs, [500, 500, 500, 500]);
});

Deno.test("replacement: with nobody left it gives up after eight failures in a row", async () => {
  const world = new World();
  world.missing = 1;
  world.isAnyLeft = false;
  world.error = new UnavailableError("no memory");
  world.replacement.noteLoss(LONG_MS);
  await world.pass(600_000);
  assert.equal(world.startsMs.length, 8);
  assert.ok(world.startsMs.at(-1)! > 60_000);
  assert.deepEqual(world.givenUp, ["no memory"]);
});

Deno.test("replacement: what only the user can put right ends it at once, unless others serve", async () => {
  const world = new World();
  world.missing = 1;
  world.error = new ModelError("no such model");
  world.replacement.noteLoss(LONG_MS);
  await world.pass(400);
  assert.deepEqual([world.givenUp, world.pausesMs], [[], [500]]);
  world.isAnyLeft = false;
  await world.pass(100);
  assert.deepEqual(world.givenUp, ["no such model"]);
  await world.pass(600_000);
  assert.equal(world.startsMs.length, 2);
});
