import assert from "node:assert/strict";
import {
  type Beats,
  type Managers,
  readManagers,
  watchBeats,
} from "../../../../src/cli/doctor/cluster/leader.ts";
import {
  LEADER_KEY,
  type LeaderRecord,
  writeLeaderRecord,
} from "../../../../src/cluster/leadership/leader_record.ts";
import { storeKey, StoreRefusedError } from "../../../../src/cluster/store/lease_store.ts";
import { VirtualClock } from "../../../../src/sim/clock/virtual_clock.ts";
import { MemoryStore } from "./memory_store.ts";

const record: LeaderRecord = {
  epoch: 2,
  leader: "m1",
  address: "tcp:10.0.0.1:9000",
  leaseMs: 1_500,
  beat: 7,
};

function candidate(store: MemoryStore, id: string, beat: number): void {
  const value = JSON.stringify({ heard: 0, beat, address: `tcp:${id}:9000` });
  store.put(storeKey("candidates", id), value);
}

async function watched(
  store: MemoryStore,
  managers: Managers,
  clock: VirtualClock,
): Promise<Beats> {
  let beats: Beats | null = null;
  watchBeats(store, managers, clock).then((result) => beats = result);
  await clock.runUntil(() => beats !== null);
  return beats!;
}

function world() {
  const store = new MemoryStore(), clock = new VirtualClock();
  store.put(LEADER_KEY, writeLeaderRecord(record));
  candidate(store, "m1", 1);
  candidate(store, "m2", 1);
  candidate(store, "m3", 1);
  return { store, clock };
}

Deno.test("cluster leader: the record and the other managers, as the store has them", async () => {
  const { store } = world();
  const managers = await readManagers(store);
  assert.deepEqual(managers.record, record);
  assert.deepEqual(managers.candidates.map(({ id, address }) => [id, address]), [
    ["m2", "tcp:m2:9000"],
    ["m3", "tcp:m3:9000"],
  ]);
  assert.deepEqual(await readManagers(new MemoryStore()), { record: null, candidates: [] });
  store.put(LEADER_KEY, "{}");
  await assert.rejects(readManagers(store), StoreRefusedError);
});

Deno.test("cluster leader: one that beats, and a candidate that does not", async () => {
  const { store, clock } = world();
  const managers = await readManagers(store);
  clock.after(700, () => store.put(LEADER_KEY, writeLeaderRecord({ ...record, beat: 8 })));
  clock.after(900, () => candidate(store, "m2", 2));
  const beats = await watched(store, managers, clock);
  assert.ok(beats.beatMs! >= 700 && beats.beatMs! < 1_000, String(beats.beatMs));
  assert.ok(beats.watchedMs >= 3_000 && beats.isLong);
  assert.deepEqual([...beats.silent!], ["m3"]);
  assert.equal(beats.successor, null);
});

Deno.test("cluster leader: a silent one, one that is followed, and a store that does not answer", async () => {
  const { store, clock } = world();
  const managers = await readManagers(store);
  const silent = await watched(store, managers, clock);
  assert.deepEqual([silent.beatMs, silent.isLong], [null, true]);
  clock.after(
    100,
    () => store.put(LEADER_KEY, writeLeaderRecord({ ...record, epoch: 3, leader: "m2" })),
  );
  const followed = await watched(store, managers, clock);
  assert.equal(followed.successor?.leader, "m2");
  store.isAway = true;
  const away = await watched(store, managers, clock);
  assert.deepEqual([away.beatMs, away.isLong, away.silent], [null, false, null]); // nobody knows
});

Deno.test("cluster leader: a lease that is too long to be watched out is not judged", async () => {
  const { store, clock } = world();
  store.put(LEADER_KEY, writeLeaderRecord({ ...record, leaseMs: 60_000 }));
  const beats = await watched(store, await readManagers(store), clock);
  assert.ok(beats.watchedMs < 7_000);
  assert.deepEqual([beats.isLong, beats.silent], [false, null]);
});
