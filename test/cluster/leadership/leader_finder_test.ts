import assert from "node:assert/strict";
import { LeaderFinder } from "../../../src/cluster/leadership/leader_finder.ts";
import { LeaderFence } from "../../../src/core/leader_fence.ts";
import { Random } from "../../../src/core/random.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { SimNetwork } from "../../../src/sim/network/sim_bus.ts";
import { SimStore } from "../../../src/sim/store/sim_store.ts";

const LEASE_MS = 1_000;

Deno.test("leader finder: what is no record of a leader stays a problem until it is one", async () => {
  const clock = new VirtualClock();
  const random = new Random(1);
  const network = new SimNetwork({ clock, random, meanDelayMs: 1, keepAliveMs: 60_000 });
  const server = new SimStore(network);
  const node = network.addNode("instance");
  const revision = server.set("leader", "another program's", 0)!;
  const problems: (string | null)[] = [];
  const moves: string[] = [];
  const finder = new LeaderFinder({
    store: server.connect(node, LEASE_MS / 2),
    clock: node.clock,
    leaseMs: LEASE_MS,
    fence: new LeaderFence("instance"),
    onMove: (address) => moves.push(address),
    onStoreProblem: (problem) => problems.push(problem?.message ?? null),
  });
  const run = async (durationMs: number) => {
    const endMs = clock.nowMs() + durationMs;
    await clock.runUntil(() => clock.nowMs() >= endMs);
  };
  await run(5 * LEASE_MS);
  assert.equal(problems.length, 1);
  assert.match(problems[0]!, /is not the record of a leader/);
  assert.equal(finder.storeProblem?.message, problems[0]);
  const record = { epoch: 1, leader: "m", address: "tcp:m:1", leaseMs: LEASE_MS, beat: 1 };
  server.set("leader", JSON.stringify(record), revision);
  await run(LEASE_MS);
  assert.deepEqual([problems.slice(1), finder.storeProblem, moves], [[null], null, ["tcp:m:1"]]);
  finder.close();
});
