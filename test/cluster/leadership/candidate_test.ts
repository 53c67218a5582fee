/** Candidates on a real store, with real connections and the real clock. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openBus } from "../../../src/bus/open_bus.ts";
import type { Listener } from "../../../src/bus/bus.ts";
import { realClock } from "../../../src/core/clock.ts";
import type { Leadership } from "../../../src/core/protocol/leadership.ts";
import { Candidate } from "../../../src/cluster/leadership/candidate.ts";
import type { LeaseStore } from "../../../src/cluster/store/lease_store.ts";
import { openLeaseStore } from "../../../src/cluster/store/stores.ts";
import { until } from "../../conformance/bus.ts";

/** Silence alone would end no leadership during a test. */
const LEASE_MS = 300_000;

class World {
  readonly #bus = openBus();
  readonly candidates: TestCandidate[] = [];

  constructor(readonly directory: string) {}

  /** Why candidates found the leader to be a stranger. */
  readonly strangers: string[] = [];

  async add(id: string, model = "m"): Promise<TestCandidate> {
    const settings = { model, dtype: "float32", maxModelLen: 8 };
    const address = `unix:${join(this.directory, `${id}.sock`)}`;
    const store = await openLeaseStore(`file:${join(this.directory, "store")}`);
    const listener = await this.#bus.listen(address, {
      calls: { identify: () => ({ data: { process: id, settings } }) },
    });
    const candidate = new Candidate({
      settings,
      onStranger: (reason) => this.strangers.push(`${id}: ${reason}`),
      store,
      clock: realClock,
      bus: this.#bus,
      id,
      address,
      leaseMs: LEASE_MS,
      onChange: () => {},
    });
    const one = { id, candidate, listener, store };
    this.candidates.push(one);
    return one;
  }

  get leaders(): Leadership[] {
    return this.candidates.flatMap(({ candidate }) => candidate.leadership ?? []);
  }

  async untilLeads({ candidate }: TestCandidate, epoch: number): Promise<void> {
    await until(() => candidate.leadership?.epoch === epoch);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { candidate, listener, store } of this.candidates) {
      // One that no longer reaches its store would wait to resign.
      candidate.learn({ epoch: 1_000_000, leader: "the end of the test" });
      await candidate.close();
      await listener.close();
      await store.close();
    }
    await Deno.remove(this.directory, { recursive: true });
  }
}

interface TestCandidate {
  readonly id: string;
  readonly candidate: Candidate;
  readonly listener: Listener;
  readonly store: LeaseStore;
}

async function makeWorld(): Promise<World> {
  return new World(await Deno.makeTempDir({ prefix: "llumnix-candidates-" }));
}

Deno.test("candidate: when the leader's process ends, another one takes over without waiting", async () => {
  await using world = await makeWorld();
  const first = await world.add("first");
  await world.untilLeads(first, 1);
  const others = [await world.add("second"), await world.add("third")];
  await until(() => others.every(({ candidate }) => candidate.record?.leader === "first"));
  // What the others see of the end of its process. It goes on, as if it were paused.
  await first.store.close();
  await first.listener.close();
  await until(() => others.some(({ candidate }) => candidate.leadership !== null));
  await until(() => others.every(({ candidate }) => candidate.record?.epoch === 2));
  assert.equal(others.filter(({ candidate }) => candidate.leadership !== null).length, 1);
  // It learns so from whoever refuses it.
  assert.deepEqual(first.candidate.leadership, { epoch: 1, leader: "first" });
  first.candidate.learn(world.leaders[1]);
  assert.deepEqual(world.leaders.map(({ epoch }) => epoch), [2]);
});

Deno.test("candidate: a process at the leader's address that is another one proves the leader's end", async () => {
  await using world = await makeWorld();
  const first = await world.add("first");
  await world.untilLeads(first, 1);
  await first.store.close();
  await first.listener.close();
  const { address } = first.candidate.record!;
  const listener = await openBus().listen(address, {
    calls: { identify: () => ({ data: { process: "first, started again" } }) },
  });
  const second = await world.add("second");
  await world.untilLeads(second, 2);
  await listener.close();
});

Deno.test("candidate: a leader that serves another model is a stranger", async () => {
  await using world = await makeWorld();
  await world.untilLeads(await world.add("first"), 1);
  await world.add("second");
  await world.add("third", "other");
  await until(() => world.strangers.length === 1);
  assert.match(
    world.strangers[0],
    /^third: this manager has --model other, and the leader at unix:.* m: give all .* another name$/,
  );
});

Deno.test("candidate: a leader that stops gives its place to another one", async () => {
  await using world = await makeWorld();
  const first = await world.add("first");
  await world.untilLeads(first, 1);
  const second = await world.add("second");
  await until(() => second.candidate.record?.leader === "first");
  await first.candidate.close();
  assert.equal(first.candidate.leadership, null);
  await world.untilLeads(second, 2);
});

Deno.test("candidate: a leader that stops may name the one that follows it, and no other does", async () => {
  await using world = await makeWorld();
  const first = await world.add("first");
  await world.untilLeads(first, 1);
  const second = await world.add("second");
  await until(() => second.candidate.record?.leader === "first");
  await first.candidate.close("third");
  await until(() => second.candidate.record?.leader === "");
  assert.equal(second.candidate.record?.heir, "third");
  const third = await world.add("third");
  await world.untilLeads(third, 2);
  assert.deepEqual(world.leaders, [{ epoch: 2, leader: "third" }]);
});

Deno.test("candidate: what is no record of a leader is named, and not overwritten", async () => {
  await using world = await makeWorld();
  const store = await openLeaseStore(`file:${join(world.directory, "store")}`);
  const revision = await store.set("leader", "another program's", 0);
  const { candidate } = await world.add("first");
  await until(() => candidate.storeProblem !== null);
  assert.match(candidate.storeProblem!.message, /is not the record of a leader.*another name/);
  await store.set("leader", null, revision!);
  await until(() => candidate.leadership !== null);
  await store.close();
});
