import assert from "node:assert/strict";
import { Election, type ElectionChange } from "../../../src/cluster/leadership/election.ts";
import type { LeaderRecord } from "../../../src/cluster/leadership/leader_record.ts";
import { StoreRefusedError } from "../../../src/cluster/store/lease_store.ts";

const LEASE_MS = 900;

/** One candidate, "me", and a store that the test writes by hand. */
class World {
  nowMs = 10_000;
  revision = 0;
  value: string | null = null;
  readonly changes: string[] = [];
  readonly election = new Election(
    { id: "me", address: "tcp:me:1", leaseMs: LEASE_MS },
    (change) => this.changes.push(describe(change)),
  );

  /** Somebody else writes. */
  put(record: Partial<LeaderRecord> | null): this {
    this.revision++;
    this.value = record === null ? null : JSON.stringify(recordOf(record));
    return this;
  }

  /** The store answers a read at once. */
  read(): this {
    this.observe();
    this.election.answered(this.nowMs, this.nowMs);
    return this;
  }

  observe(): void {
    const { value, revision } = this;
    const entry = value === null ? null : { key: "leader", value, revision };
    this.election.observe(entry, this.nowMs);
  }

  pass(ms: number): this {
    this.nowMs += ms;
    return this;
  }

  /** Reads every 100 ms. */
  passReading(ms: number): this {
    for (let passed = 0; passed < ms; passed += 100) this.pass(100).read();
    return this;
  }

  /** What it wants written now; the write is not done. */
  get wanted(): LeaderRecord | null {
    const write = this.election.nextWrite(this.nowMs);
    if (write === null) return null;
    assert.equal(write.expected, this.value === null ? 0 : this.revision);
    return JSON.parse(write.value);
  }

  /** It wants to write, and the store takes it. */
  write(): LeaderRecord {
    const record = this.wanted;
    assert.ok(record, "it wants to write nothing");
    this.value = JSON.stringify(record);
    this.election.written(++this.revision, this.nowMs);
    return record;
  }

  lead(): this {
    this.read().write();
    this.changes.length = 0;
    return this;
  }
}

function describe(change: ElectionChange): string {
  return change.type === "leads" ? `leads in ${change.leadership.epoch}` : change.reason;
}

function recordOf(record: Partial<LeaderRecord>): LeaderRecord {
  return {
    epoch: 1,
    leader: "other",
    address: "tcp:other:1",
    leaseMs: LEASE_MS,
    beat: 1,
    ...record,
  };
}

Deno.test("election: the first candidate leads once it has read that nobody does, and beats", () => {
  const world = new World();
  assert.equal(world.wanted, null, "not before it has read");
  world.read();
  assert.deepEqual([world.write().epoch, world.changes], [1, ["leads in 1"]]);
  assert.deepEqual(world.election.leadership, { epoch: 1, leader: "me" });
  assert.equal(world.pass(LEASE_MS / 5 - 1).wanted, null);
  assert.equal(world.pass(1).write().beat, 2);
});

Deno.test("election: takes over after a lease of silence, and not while the leader beats", () => {
  const world = new World().put({ epoch: 7, beat: 1 }).read();
  world.passReading(LEASE_MS - 100);
  assert.equal(world.wanted, null);
  world.put({ epoch: 7, beat: 2 }).passReading(LEASE_MS);
  assert.equal(world.wanted, null);
  world.passReading(100);
  assert.equal(world.write().epoch, 8);
});

Deno.test("election: no silence is counted while the store is away, nor while it is slow", () => {
  const world = new World().put({}).read();
  world.passReading(LEASE_MS - 100);
  world.pass(60_000).election.away();
  world.read();
  assert.equal(world.wanted, null, "it counts anew");
  world.passReading(LEASE_MS - 100);
  // An answer that took a minute.
  world.observe();
  const sentMs = world.nowMs;
  world.pass(60_000).election.answered(sentMs, world.nowMs);
  assert.equal(world.wanted, null, "it proves nothing");
  world.passReading(100);
  assert.equal(world.write().epoch, 2);
});

Deno.test("election: the way to a distant store does not lengthen a leader's silence", () => {
  const world = new World().put({}).read();
  const wayMs = LEASE_MS / 15;
  const read = () => {
    const sentMs = world.nowMs;
    world.pass(wayMs).election.answered(sentMs, world.nowMs);
  };
  for (let i = 0; i < 14; i++) read();
  assert.equal(world.wanted, null);
  read();
  assert.equal(world.write().epoch, 2);
});

Deno.test("election: reads prove most of the silence, and the write itself the rest", () => {
  for (const [readUntilMs, isProven] of [[500, false], [600, true]] as const) {
    const world = new World().put({}).read().passReading(readUntilMs);
    assert.equal(world.election.dueMs, 10_000 + LEASE_MS);
    world.pass(LEASE_MS - readUntilMs - 1);
    assert.deepEqual([world.wanted, world.election.needsProof(world.nowMs)], [null, false]);
    world.pass(1);
    assert.equal(world.election.needsProof(world.nowMs), !isProven);
    assert.equal(world.wanted?.epoch, isProven ? 2 : undefined);
  }
});

Deno.test("election: a leader that the store does not answer goes on leading", () => {
  const world = new World().lead();
  for (let i = 0; i < 100; i++) {
    world.pass(100).election.away();
    if (world.wanted !== null) world.election.failed(world.nowMs);
  }
  assert.deepEqual([world.election.leadership?.epoch, world.changes], [1, []]);
  assert.equal(world.read().write().epoch, 1, "and beats again");
});

Deno.test("election: a leader whose process has ended is replaced at once, another one is not", () => {
  const world = new World().put({ leader: "other", epoch: 3 }).read();
  world.election.leaderEnded("somebody");
  assert.equal(world.wanted, null);
  world.election.leaderEnded("other");
  assert.equal(world.write().epoch, 4);
});

Deno.test("election: the end of a former leader says nothing of the present one", () => {
  const world = new World().put({ leader: "other" }).read();
  world.election.leaderEnded("other");
  world.put({ leader: "third", epoch: 2 }).read();
  assert.equal(world.wanted, null);
});

Deno.test("election: a write whose answer is lost is read back", () => {
  const world = new World().read();
  const record = world.wanted!;
  world.election.failed(world.nowMs);
  assert.equal(world.wanted, null, "it reads first");
  world.put(record);
  world.pass(100).read();
  assert.deepEqual(world.changes, ["leads in 1"]);

  // A beat whose answer is lost, and whose repetition is in its own way.
  world.pass(LEASE_MS / 3);
  const beat = world.wanted!;
  world.election.conflicted(world.nowMs);
  world.put(beat).pass(100).read();
  assert.equal(world.election.leadership?.epoch, 1);
  assert.equal(world.pass(LEASE_MS).write().beat, beat.beat + 1);
  assert.deepEqual(world.changes, ["leads in 1"]);
});

Deno.test("election: a write that was not done is tried again after a pause", () => {
  const world = new World().read();
  assert.ok(world.wanted);
  world.election.failed(world.nowMs);
  assert.equal(world.read().wanted, null);
  assert.equal(world.pass(LEASE_MS / 15).write().epoch, 1);
});

Deno.test("election: a leader follows when the store shows a newer one, and overwrites an older one", () => {
  const world = new World().put({ epoch: 4, leader: "", heir: "me" }).lead();
  assert.equal(world.election.leadership?.epoch, 5);
  world.put({ epoch: 2, leader: "old" }).read();
  assert.equal(world.write().epoch, 5, "the store has gone back");
  world.put(null).read();
  assert.equal(world.write().epoch, 5, "the store has lost the record");
  assert.deepEqual(world.changes, []);
  world.put({ epoch: 6, leader: "new" }).read();
  assert.deepEqual(world.changes, ["new leads in epoch 6"]);
  assert.equal(world.election.leadership, null);
});

Deno.test("election: a leader that a receiver refuses needs a newer epoch than that receiver knows", () => {
  for (
    const [known, next] of [[{ epoch: 9, leader: "b" }, 10], [
      { epoch: 1, leader: "b" },
      2,
    ]] as const
  ) {
    const world = new World().lead();
    world.election.learn({ epoch: 1, leader: "me" }, world.nowMs);
    assert.deepEqual(world.changes, [], "that is its own");
    world.election.learn(known, world.pass(1).nowMs);
    assert.deepEqual(world.changes, [
      `a receiver of its decisions knows b, which leads in epoch ${known.epoch}`,
    ]);
    assert.equal(world.wanted, null, "it reads first");
    // The store still names it, and nobody else.
    world.pass(1).read();
    assert.equal(world.write().epoch, next);
  }
});

Deno.test("election: a beat that is answered after a refusal does not bring the leadership back", () => {
  const world = new World().lead();
  const beat = world.pass(LEASE_MS).wanted!;
  world.election.learn({ epoch: 1, leader: "b" }, world.nowMs);
  world.put(beat);
  world.election.written(world.revision, world.nowMs);
  assert.equal(world.election.leadership, null);
  world.pass(1).read();
  assert.equal(world.write().epoch, 2);
});

Deno.test("election: a follower that a receiver has told of a newer epoch does not repeat it", () => {
  const world = new World().put({ epoch: 2 }).read();
  world.election.learn({ epoch: 30, leader: "b" }, world.nowMs);
  world.passReading(LEASE_MS + 100);
  assert.equal(world.write().epoch, 31);
});

Deno.test("election: a leader that resigns gives its place to the heir, then to any", () => {
  const world = new World().lead();
  world.election.resign("b hears more", "b");
  assert.deepEqual([world.election.leadership, world.changes], [null, ["b hears more"]]);
  const { leader, heir, epoch } = world.write();
  assert.deepEqual({ leader, heir, epoch }, { leader: "", heir: "b", epoch: 1 });
  assert.equal(world.election.isResigning, false);
  world.passReading(LEASE_MS - 100);
  assert.equal(world.wanted, null, "the heir has a lease of time");
  world.passReading(200);
  assert.equal(world.write().epoch, 2);

  const heirWorld = new World().put({ leader: "", heir: "me", epoch: 4 }).read();
  assert.equal(heirWorld.write().epoch, 5);
  const anyWorld = new World().put({ leader: "", epoch: 4 }).read();
  assert.equal(anyWorld.write().epoch, 5);
});

Deno.test("election: a candidate that has stopped never leads again", () => {
  const world = new World().read();
  const takeover = world.wanted!;
  world.election.resign("it stops", undefined, false);
  world.put(takeover);
  world.election.written(world.revision, world.nowMs);
  assert.deepEqual([world.election.leadership, world.changes], [null, []]);
  world.put({ leader: "" }).read();
  assert.equal(world.wanted, null);
});

Deno.test("election: a takeover that another one has overtaken does not lead", () => {
  const world = new World().read();
  const takeover = world.wanted!;
  // A watch shows the next record before the answer comes.
  world.put(takeover).put({ epoch: 2, leader: "b" });
  world.observe();
  world.election.written(1, world.nowMs);
  assert.deepEqual([world.election.leadership, world.changes], [null, []]);
});

Deno.test("election: what is no record of a leader is refused by name", () => {
  const world = new World();
  world.revision = 1;
  for (const value of ["", "7", "{}", JSON.stringify(recordOf({ epoch: 0 })), '{"epoch":1}']) {
    world.value = value;
    assert.throws(() => world.observe(), (error) => {
      assert.ok(error instanceof StoreRefusedError);
      return /entry "leader" is not the record of a leader/.test(error.message);
    });
  }
});

Deno.test("election: a record whose epoch leaves none for the next leader is refused", () => {
  const world = new World().put({ epoch: Number.MAX_SAFE_INTEGER });
  assert.throws(() => world.read(), StoreRefusedError);
  assert.equal(world.election.known, null); // it does not outlive the record
});
