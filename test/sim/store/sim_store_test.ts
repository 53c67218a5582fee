import assert from "node:assert/strict";
import type { LeaseStore } from "../../../src/cluster/store/lease_store.ts";
import { Random } from "../../../src/core/random.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { turnEventLoop } from "../../../src/sim/clock/settle_promises.ts";
import { SimNetwork } from "../../../src/sim/network/sim_bus.ts";
import { SimStore } from "../../../src/sim/store/sim_store.ts";
import { CALL_TIMEOUT_MS, testLeaseStore } from "../../conformance/lease_store.ts";

const STEP_MS = 10;
const PATIENCE_MS = 60_000;

testLeaseStore({
  name: "simulated",
  faults: ["stop", "silence", "compact", "loseNextAnswer"],
  missing: null,
  open() {
    const clock = new VirtualClock();
    const network = new SimNetwork({
      clock,
      random: new Random(1),
      meanDelayMs: 1,
      keepAliveMs: 1_000,
    });
    const server = new SimStore(network);
    const stores: LeaseStore[] = [];
    return Promise.resolve({
      open() {
        const node = network.addNode(`client-${stores.length}`);
        const store = server.connect(node, CALL_TIMEOUT_MS);
        stores.push(store);
        return Promise.resolve(store);
      },
      async settle<T>(promise: Promise<T>) {
        let isSettled = false;
        const settle = () => isSettled = true;
        promise.then(settle, settle);
        while (!isSettled) {
          assert.ok(clock.nowMs() < PATIENCE_MS, "nothing happened for a simulated minute");
          // In steps, so that the pauses of the suite take simulated time too.
          let isLater = false;
          clock.after(STEP_MS, () => isLater = true);
          await clock.runUntil(() => isSettled || isLater);
          await turnEventLoop();
        }
        return await promise;
      },
      stop: () => Promise.resolve(server.stop()),
      start: () => Promise.resolve(server.start()),
      silence: () => Promise.resolve(server.silence()),
      unsilence: () => Promise.resolve(server.start()),
      compact: () => Promise.resolve(server.compact()),
      loseNextAnswer: () => server.loseNextAnswer(),
      async [Symbol.asyncDispose]() {
        for (const store of stores) await store.close();
      },
    });
  },
});
