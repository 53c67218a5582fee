/** The whole report, of a cluster within this process. */
import assert from "node:assert/strict";
import { examineCluster } from "../../../../src/cli/doctor/cluster/examine.ts";
import { LEADER_KEY, writeLeaderRecord } from "../../../../src/cluster/leadership/leader_record.ts";
import { storeKey } from "../../../../src/cluster/store/lease_store.ts";
import type { Clock } from "../../../../src/core/clock.ts";
import { World } from "../../../manager/agents/support.ts";
import { silently } from "../fake_host.ts";
import { MemoryStore } from "./memory_store.ts";

/** A store with a leader, whose record changes as time passes. */
class LedStore extends MemoryStore {
  #beat: () => void = () => {};

  lead(leader: string, address: string): void {
    let beat = 0;
    this.#beat = () => {
      const record = { epoch: 4, leader, address, leaseMs: 1_500, beat: ++beat };
      this.put(LEADER_KEY, writeLeaderRecord(record));
    };
    this.#beat();
  }

  candidate(id: string, address: string): void {
    this.put(storeKey("candidates", id), JSON.stringify({ heard: 0, beat: 1, address }));
  }

  /** Whoever waits lets the time pass, however busy this machine is. */
  get clock(): Clock {
    let nowMs = 0;
    return {
      nowMs: () => nowMs,
      after: (delayMs, callback) => {
        nowMs += delayMs;
        this.#beat();
        const timer = setTimeout(callback, 0);
        return () => clearTimeout(timer);
      },
      soon: (callback) => void setTimeout(callback, 0),
    };
  }
}

function examine({ bus }: World, store: LedStore) {
  const options = { url: "memory:", prefillTokensPerSecond: null, step: silently };
  return examineCluster({ ...options, store, bus, clock: store.clock });
}

async function worldOf(processId: string) {
  const world = new World();
  const cluster = {
    processId,
    hostName: "a",
    leadership: () => ({ epoch: 4, leader: processId }),
    onSuperseded: () => {},
  };
  await world.manager({}, { cluster });
  await Promise.all(["a", "b"].map((name) => world.host(name).agent.joined));
  return world;
}

Deno.test("cluster examination: a leader with two hosts, from the store to the paths", async () => {
  await using world = await worldOf("m1");
  const store = new LedStore();
  store.lead("m1", "inproc:manager");
  store.candidate("m1", "inproc:manager");
  const report = await examine(world, store);
  assert.deepEqual(report.problems, []);
  const { state, epoch, process, beatMs, failure } = report.leader;
  assert.deepEqual([state, epoch, process, failure], ["leads", 4, "m1", null]);
  assert.ok(beatMs !== null);
  assert.deepEqual(report.hosts.map(({ host, agent }) => [host, agent]), [
    ["a", "present"],
    ["b", "present"],
  ]);
  assert.deepEqual(report.addresses.map(({ who, host }) => [who, host]), [["leader", "a"]]);
  assert.deepEqual(report.paths.map(({ from, to, failure }) => [from, to, failure]), [
    ["a", "b", null],
    ["b", "a", null],
  ]);
  assert.equal(report.numPathsOmitted, 0);
  assert.equal(report.crossover, null); // no instance serves
});

Deno.test("cluster examination: another process at the leader's address, and a dead manager's entry", async () => {
  await using world = await worldOf("m2");
  const store = new LedStore();
  store.lead("m1", "inproc:manager");
  store.candidate("gone", "inproc:gone");
  const { problems, addresses, endedManagers } = await examine(world, store);
  assert.equal(problems.length, 2, problems.join("\n"));
  assert.match(problems[0], /a manager stood for election at inproc:gone a moment ago/);
  assert.match(problems[1], /the process at its address is m2, and the record names m1/);
  assert.deepEqual(addresses.map(({ who }) => who), ["leader"]);
  assert.deepEqual(endedManagers, ["inproc:gone"]);
});

Deno.test("cluster examination: nobody there, something else there, and no store", async () => {
  await using world = new World();
  const store = new LedStore();
  assert.match((await examine(world, store)).problems[0], /no manager has led in memory: yet/);
  store.put(LEADER_KEY, "{}");
  const [damaged, ...rest] = (await examine(world, store)).problems;
  assert.match(
    damaged,
    /"leader" is not the record of a leader: another program or another version/,
  );
  assert.deepEqual(rest, []);
  store.isAway = true;
  assert.deepEqual((await examine(world, store)).problems, [
    "the lease store cannot be used: the store is away",
  ]);
});
