import assert from "node:assert/strict";
import { examineProcess } from "../../src/bus/clock_difference.ts";
import type { Peer } from "../../src/bus/bus.ts";
import { UnavailableError } from "../../src/core/errors.ts";

/** Another process, whose answers take so long, and whose clock is so far ahead. */
class Other {
  nowMs = 1_000;
  readonly clocks = { wallMs: () => 1e6 + this.nowMs, steadyMs: () => this.nowMs };

  constructor(private readonly tripsMs: readonly number[], private readonly aheadMs: number) {}

  readonly peer = {
    call: () => {
      const tripMs = this.tripsMs[this.#questions++];
      // It looks at its clock when nine tenths of the time have passed.
      const timeMs = 1e6 + this.nowMs + 0.9 * tripMs + this.aheadMs;
      this.nowMs += tripMs;
      return Promise.resolve({ data: { process: "p", version: "1", timeMs } });
    },
  } as unknown as Peer;
  #questions = 0;
}

Deno.test("clock difference: of several answers the fastest counts, and bounds the error", async () => {
  for (const aheadMs of [0, 5_000, -5_000]) {
    const { peer, clocks } = new Other([80, 40, 10, 60, 20], aheadMs);
    const { process, clock } = await examineProcess(peer, {}, clocks);
    assert.equal(process.process, "p");
    assert.deepEqual(clock, { aheadMs: aheadMs + 4, uncertaintyMs: 6, roundTripMs: 10 });
    assert.ok(Math.abs(clock.aheadMs - aheadMs) <= clock.uncertaintyMs);
  }
});

Deno.test("clock difference: an end that does not answer is an error", async () => {
  const peer = { call: () => Promise.reject(new UnavailableError("no answer")) };
  await assert.rejects(examineProcess(peer, {}), UnavailableError);
});
