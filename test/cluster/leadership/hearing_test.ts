import assert from "node:assert/strict";
import { Hearing } from "../../../src/cluster/leadership/hearing.ts";
import { Random } from "../../../src/core/random.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { turnEventLoop } from "../../../src/sim/clock/settle_promises.ts";
import { SimNetwork } from "../../../src/sim/network/sim_bus.ts";
import { SimStore } from "../../../src/sim/store/sim_store.ts";

const PERIOD_MS = 1_000;

Deno.test("hearing: what a candidate heard before it died is no reason to resign later", async () => {
  const clock = new VirtualClock(1_000_000);
  const network = new SimNetwork({
    ...{ clock, random: new Random(1), meanDelayMs: 1, keepAliveMs: 1_000 },
  });
  const server = new SimStore(network);
  const counts = new Map([["dead", 2], ["leader", 0]]);
  const hearings = [...counts.keys()].map((id) => {
    const node = network.addNode(id);
    const store = server.connect(node, PERIOD_MS / 3);
    return new Hearing({
      ...{
        store,
        clock,
        id,
        address: `inproc:${id}`,
        periodMs: PERIOD_MS,
        heard: () => counts.get(id)!,
      },
    });
  });
  const leader = hearings[1];
  /** In steps, as the leader looks. */
  const pass = async (ms: number) => {
    const seen: (string | null)[] = [];
    for (const endMs = clock.nowMs() + ms; clock.nowMs() < endMs;) {
      let isLater = false;
      clock.after(PERIOD_MS / 15, () => isLater = true);
      await clock.runUntil(() => isLater);
      await turnEventLoop();
      seen.push(leader.findBetter());
    }
    return seen;
  };
  const before = await pass(3 * PERIOD_MS);
  assert.equal(before.at(-1), "dead"); // it follows, and hears more
  // The other one dies, this one leads and hears both instances. Then one of them is stopped.
  network.kill("dead");
  counts.set("leader", 2);
  assert.equal((await pass(PERIOD_MS / 3)).at(-1), null);
  counts.set("leader", 1);
  const later = await pass(5 * PERIOD_MS);
  assert.deepEqual(later.filter((better) => better !== null), []);
  leader.close();
  await pass(PERIOD_MS);
});
