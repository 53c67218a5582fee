import assert from "node:assert/strict";
import { examineProcess } from "../../src/bus/clock_difference.ts";
import type { Peer } from "../../src/bus/bus.ts";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { UnavailableError } from "../../src/core/errors.ts";

async function connect(bus: InProcessBus, timeMs: () => number | Promise<number>): Promise<Peer> {
  await bus.listen("inproc:there", {
    calls: {
      examine: async () => ({ data: { process: "p", version: "1", timeMs: await timeMs() } }),
    },
  });
  return await bus.connect("inproc:there", {}) as Peer;
}

Deno.test("clock difference: the middle of question and answer, within half of the time between", async () => {
  const bus = new InProcessBus();
  const peer = await connect(bus, () => 5_000);
  const { process, clock } = await examineProcess(peer, {}, () => 3_000);
  assert.equal(process.process, "p");
  const { aheadMs, uncertaintyMs, roundTripMs } = clock;
  assert.equal(aheadMs, 5_000 - (3_000 + roundTripMs / 2));
  assert.equal(uncertaintyMs, roundTripMs / 2 + 1);
  await peer.close();
});

Deno.test("clock difference: of several answers the fastest counts", async () => {
  const bus = new InProcessBus();
  let questions = 0;
  const peer = await connect(bus, async () => {
    const isSlow = ++questions !== 3;
    if (isSlow) await new Promise((resolve) => setTimeout(resolve, 50));
    return isSlow ? 0 : 1e6;
  });
  // The fast answer says another time than the slow ones. A machine that stands still may lose it.
  const { clock } = await examineProcess(peer, {}, () => 0);
  if (clock.roundTripMs < 50) assert.ok(clock.aheadMs > 9e5, String(clock.aheadMs));
  await peer.close();
});

Deno.test("clock difference: an end that does not answer is an error", async () => {
  const bus = new InProcessBus();
  const peer = await connect(bus, () => new Promise(() => {}));
  await assert.rejects(examineProcess(peer, { timeoutMs: 10 }), UnavailableError);
  await peer.close();
});
