/** What a candidate says of its store, on a simulated one. */
import assert from "node:assert/strict";
import { Candidate } from "../../../src/cluster/leadership/candidate.ts";
import { type LeaseStore, StoreAwayError } from "../../../src/cluster/store/lease_store.ts";
import { Random } from "../../../src/core/random.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { SimNetwork } from "../../../src/sim/network/sim_bus.ts";
import { SimStore } from "../../../src/sim/store/sim_store.ts";

const LEASE_MS = 1_000;

Deno.test("candidate: a store that answers reads and takes no write is told once, and once it takes them", async () => {
  const clock = new VirtualClock();
  const random = new Random(1);
  const network = new SimNetwork({ clock, random, meanDelayMs: 1, keepAliveMs: 60_000 });
  const node = network.addNode("m");
  const real = new SimStore(network).connect(node, LEASE_MS / 2);
  let isFull = true;
  const store: LeaseStore = {
    name: real.name,
    describe: () => real.describe(),
    get: (key) => real.get(key),
    set: (...args) => isFull ? Promise.reject(new StoreAwayError("no space")) : real.set(...args),
    list: (scope) => real.list(scope),
    watch: (...args) => real.watch(...args),
    close: () => real.close(),
  };
  const problems: (string | null)[] = [];
  const candidate = new Candidate({
    store,
    clock: node.clock,
    bus: node.bus,
    id: "m",
    address: "inproc:m",
    leaseMs: LEASE_MS,
    onChange: () => {},
    onStoreProblem: (problem) => problems.push(problem?.message ?? null),
  });
  const run = async (durationMs: number) => {
    const endMs = clock.nowMs() + durationMs;
    await clock.runUntil(() => clock.nowMs() >= endMs);
  };
  await run(5 * LEASE_MS);
  assert.deepEqual([problems, candidate.leadership], [["no space"], null]);
  isFull = false;
  await run(LEASE_MS);
  assert.deepEqual([problems, candidate.leadership?.epoch], [["no space", null], 1]);
  isFull = true;
  await run(5 * LEASE_MS);
  assert.deepEqual([problems.slice(2), candidate.leadership?.epoch], [["no space"], 1]);
  candidate.learn({ epoch: 9, leader: "the end of the test" });
  await candidate.close();
});
