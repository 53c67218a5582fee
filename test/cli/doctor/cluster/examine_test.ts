/** The whole report, of a cluster within this process. */
import assert from "node:assert/strict";
import { examineCluster } from "../../../../src/cli/doctor/cluster/examine.ts";
import { LEADER_KEY, writeLeaderRecord } from "../../../../src/cluster/leadership/leader_record.ts";
import { storeKey } from "../../../../src/cluster/store/lease_store.ts";
import { realClock } from "../../../../src/core/clock.ts";
import { World } from "../../../manager/agents/support.ts";
import { silently } from "../fake_host.ts";
import { MemoryStore } from "./memory_store.ts";

/** Shortest lease: the record is watched for two. */
const LEASE_MS = 200;

/** A store whose leader beats until the test ends. */
class BeatingStore extends MemoryStore implements Disposable {
  #timer: ReturnType<typeof setInterval> | undefined;
  #beat = 0;

  lead(leader: string, address: string): void {
    const beat = () => {
      const record = { epoch: 4, leader, address, leaseMs: LEASE_MS, beat: ++this.#beat };
      this.put(LEADER_KEY, writeLeaderRecord(record));
    };
    beat();
    this.#timer = setInterval(beat, LEASE_MS / 4);
  }

  candidate(id: string, address: string): void {
    this.put(storeKey("candidates", id), JSON.stringify({ heard: 0, beat: 1, address }));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

function examine({ bus }: World, store: MemoryStore) {
  const options = {
    url: "memory:",
    clock: realClock,
    prefillTokensPerSecond: null,
    step: silently,
  };
  return examineCluster({ ...options, store, bus });
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
  using store = new BeatingStore();
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
  using store = new BeatingStore();
  store.lead("m1", "inproc:manager");
  store.candidate("gone", "inproc:gone");
  const { problems, addresses, endedManagers } = await examine(world, store);
  assert.equal(problems.length, 1, problems.join("\n"));
  assert.match(problems[0], /the process at its address is m2, and the record names m1/);
  assert.deepEqual(addresses.map(({ who }) => who), ["leader"]);
  assert.deepEqual(endedManagers, ["inproc:gone"]);
});

Deno.test("cluster examination: nobody there, something else there, and no store", async () => {
  await using world = new World();
  const store = new MemoryStore();
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
