/** What every lease store must do. */
import assert from "node:assert/strict";
import { RequestError } from "../../src/core/errors.ts";
import {
  CompactedError,
  type LeaseStore,
  MAX_VALUE_BYTES,
  type Revision,
  type Scope,
  StoreAwayError,
  type StoreChange,
  StoreRefusedError,
} from "../../src/cluster/store/lease_store.ts";

/** A store under test, and what can be done to its servers. */
export interface StoreWorld extends AsyncDisposable {
  /** Opens one more client, with the time limit {@linkcode CALL_TIMEOUT_MS}. Closed with the world. */
  open(): Promise<LeaseStore>;
  /** Lets time pass until a promise is settled. Default: real time passes by itself. */
  settle?<T>(promise: Promise<T>): Promise<T>;
  /** The servers end; what they acknowledged stays. */
  stop?(): Promise<void>;
  start?(): Promise<void>;
  /** The servers keep connections open, take new ones, and answer nothing. */
  silence?(): Promise<void>;
  unsilence?(): Promise<void>;
  /** The store drops all changes but the latest of each key. */
  compact?(upTo: Revision): Promise<void>;
  /** The next write is done, and its answer is lost. */
  loseNextAnswer?(): void;
  /** From now on the clients' credentials are refused, on open connections too. */
  revoke?(): Promise<void>;
}

export interface StoreUnderTest {
  readonly name: string;
  /** What a world of it can do: a fault that no world offers is not tested. */
  readonly faults: readonly Fault[];
  /**
   * Of writes that arrive at the same time, it may acknowledge several. The last one counts, and elections
   * live with that: see {@linkcode supersedes}.
   */
  readonly mayAcknowledgeTwice?: boolean;
  /** Why it cannot be tested here; null if it can. */
  readonly missing: string | null;
  open(): Promise<StoreWorld>;
}

type Fault = "stop" | "silence" | "compact" | "loseNextAnswer" | "revoke";

/** Of the clients under test. Long enough for a loaded machine. */
export const CALL_TIMEOUT_MS = 2_000;
/** Until a test gives up on something that has to happen, and says what it saw. */
const PATIENCE_MS = 30_000;

/** Changes that a watch has reported, and its end. */
class Seen {
  readonly changes: StoreChange[] = [];
  readonly ended = Promise.withResolvers<Error>();
  readonly stop: () => void;
  #wake = () => {};

  constructor(store: LeaseStore, scope: Scope, after: Revision) {
    this.stop = store.watch(scope, after, {
      onChange: (change) => {
        this.changes.push(change);
        this.#wake();
      },
      onEnd: (error) => this.ended.resolve(error),
    });
  }

  /** Waits for a change to this value. @throws {Error} the watch ended */
  async value(key: string, value: string | null): Promise<void> {
    const isThere = () => this.changes.some((one) => one.key === key && one.value === value);
    let why = "the watch did not report it";
    const end = this.ended.promise.then((error) => why = `the watch ended: ${error.message}`);
    while (!isThere()) {
      const woken = new Promise<void>((resolve) => this.#wake = resolve);
      await Promise.race([woken, end]);
      if (!isThere() && why.startsWith("the watch ended")) {
        assert.fail(`${key} = ${value}: ${why}; it saw ${JSON.stringify(this.changes)}`);
      }
    }
  }
}

/** Registers the suite's tests. */
export function testLeaseStore(subject: StoreUnderTest): void {
  const { missing } = subject;
  const test = (title: string, body: (world: StoreWorld) => Promise<void>, fault?: Fault) => {
    if (fault !== undefined && !subject.faults.includes(fault)) return;
    Deno.test({
      name: `lease store ${subject.name}: ${title}${missing === null ? "" : ` (${missing})`}`,
      ignore: missing !== null,
      async fn() {
        await using world = await subject.open();
        const settle = world.settle?.bind(world) ?? withPatience;
        await settle(body(world));
      },
    });
  };

  test("a key that was never written is absent", async (world) => {
    const store = await world.open();
    assert.equal(await store.get("leader"), null);
    assert.deepEqual((await store.list("leader")).entries, []);
    assert.deepEqual((await store.list("hosts/")).entries, []);
    assert.deepEqual((await store.list("")).entries, []);
  });

  test("what was written is read, by others too", async (world) => {
    const [a, b] = [await world.open(), await world.open()];
    const value = 'a "text", ünï¢ode ✓ \n and more';
    const revision = await a.set("leader", value, 0);
    assert.ok(revision !== null && revision > 0, String(revision));
    for (const store of [a, b]) {
      assert.deepEqual(await store.get("leader"), { key: "leader", value, revision });
    }
  });

  test("a write at another revision is refused, and changes nothing", async (world) => {
    const store = await world.open();
    const first = (await store.set("leader", "1", 0))!;
    assert.equal(await store.set("leader", "x", 0), null, "it is there already");
    const second = (await store.set("leader", "2", first))!;
    assert.ok(second > first, `${second} after ${first}`);
    assert.equal(await store.set("leader", "x", first), null, "an old revision");
    assert.equal(await store.set("hosts/a", "x", second), null, "an absent key");
    assert.equal((await store.get("leader"))?.value, "2");
    assert.equal(await store.get("hosts/a"), null);
  });

  test("a removed key is absent, and can be written again", async (world) => {
    const store = await world.open();
    const first = (await store.set("hosts/a", "1", 0))!;
    assert.equal(await store.set("hosts/a", null, first - 1 || 99), null, "another revision");
    const removal = (await store.set("hosts/a", null, first))!;
    assert.ok(removal > first, `${removal} after ${first}`);
    assert.equal(await store.get("hosts/a"), null);
    assert.deepEqual((await store.list("hosts/")).entries, []);
    assert.equal(await store.set("hosts/a", "x", first), null, "it is gone");
    const again = (await store.set("hosts/a", "2", 0))!;
    assert.ok(again > removal, `${again} after ${removal}`);
    assert.equal((await store.get("hosts/a"))?.value, "2");
  });

  test("of concurrent writers one wins each time", async (world) => {
    const stores = [await world.open(), await world.open(), await world.open()];
    let expected = 0;
    for (let round = 0; round < 5; round++) {
      const answers = await Promise.all(stores.map(async (store, i) => {
        try {
          return await store.set("leader", `${round} ${i}`, expected);
        } catch (error) {
          // As it may happen to one of two writers of a JetStream cluster of 2.9: a read tells.
          if (error instanceof StoreAwayError) return "unknown";
          throw error;
        }
      }));
      const what = `round ${round}, after ${expected}: ${JSON.stringify(answers)}`;
      const there = (await untilAnswered(() => stores[round % 3].get("leader")))!;
      const winner = answers.findIndex((_, i) => there.value === `${round} ${i}`);
      assert.ok(winner >= 0, `${what}, and then ${JSON.stringify(there)}`);
      assert.ok([there.revision, "unknown"].includes(answers[winner]!), what);
      const others = answers.filter((_, i) => i !== winner);
      if (!subject.mayAcknowledgeTwice) {
        assert.deepEqual(others.filter((answer) => typeof answer === "number"), [], what);
      }
      expected = there.revision;
    }
  });

  test("a scope lists its keys alone", async (world) => {
    const store = await world.open();
    const keys = ["hosts/a", "hosts/b=2Ec", "hostsx/a", "leader", "hosts/a/deep"];
    for (const key of keys) await store.set(key, key, 0);
    const list = async (scope: Scope) =>
      (await store.list(scope)).entries.map(({ key, value }) => {
        assert.equal(value, key);
        return key;
      }).sort();
    assert.deepEqual(await list("hosts/"), ["hosts/a", "hosts/a/deep", "hosts/b=2Ec"]);
    assert.deepEqual(await list("hosts/a"), ["hosts/a"]);
    assert.deepEqual(await list("leader"), ["leader"]);
    assert.deepEqual(await list(""), [...keys].sort());
    assert.deepEqual(await list("nothing/"), []);
  });

  test("a watch after a list misses no change", async (world) => {
    const [writer, reader] = [await world.open(), await world.open()];
    await writer.set("hosts/a", "1", 0);
    const { entries, revision } = await reader.list("hosts/");
    assert.deepEqual(entries.map(({ value }) => value), ["1"]);
    // Before the watch begins.
    const second = (await writer.set("hosts/a", "2", entries[0].revision))!;
    const seen = new Seen(reader, "hosts/", revision);
    await seen.value("hosts/a", "2");
    await writer.set("other", "x", 0);
    await writer.set("hosts/b", "3", 0);
    await seen.value("hosts/b", "3");
    await writer.set("hosts/a", null, second);
    await seen.value("hosts/a", null);
    assert.deepEqual(seen.changes.filter(({ key }) => !key.startsWith("hosts/")), []);
    const order = seen.changes.map(({ revision }) => revision);
    assert.deepEqual(order, [...order].sort((a, b) => a - b), "in the order of the changes");
    seen.stop();
  });

  test("a watch of one absent key reports its first value", async (world) => {
    const [writer, reader] = [await world.open(), await world.open()];
    const { revision } = await reader.list("leader");
    const seen = new Seen(reader, "leader", revision);
    await writer.set("leader2", "x", 0);
    await writer.set("leader", "1", 0);
    await seen.value("leader", "1");
    assert.deepEqual(seen.changes.map(({ key }) => key), ["leader"]);
    seen.stop();
  });

  test("a watch may skip values that were replaced, and reports the latest", async (world) => {
    const [writer, reader] = [await world.open(), await world.open()];
    let revision = (await writer.set("leader", "0", 0))!;
    const seen = new Seen(reader, "leader", revision);
    for (let i = 1; i <= 20; i++) revision = (await writer.set("leader", `${i}`, revision))!;
    await seen.value("leader", "20");
    assert.equal(seen.changes.at(-1)!.revision, revision);
    seen.stop();
  });

  test("a stopped watch says nothing more", async (world) => {
    const store = await world.open();
    const first = (await store.set("leader", "1", 0))!;
    const stopped = new Seen(store, "leader", first), other = new Seen(store, "leader", first);
    stopped.stop();
    await store.set("leader", "2", first);
    await other.value("leader", "2");
    assert.deepEqual(stopped.changes, []);
    other.stop();
  });

  test("a value of the largest size passes, a larger one and a wrong key are refused", async (world) => {
    const store = await world.open();
    const value = "x".repeat(MAX_VALUE_BYTES);
    await store.set("hosts/a", value, 0);
    assert.equal((await store.get("hosts/a"))?.value, value);
    await assert.rejects(store.set("hosts/b", value + "x", 0), RequestError);
    await assert.rejects(
      store.set("hosts/b", "é".repeat(MAX_VALUE_BYTES / 2 + 1), 0),
      RequestError,
    );
    for (const key of ["", "/a", "a/", "a b", "a.b", "*", "a//b", "x".repeat(300)]) {
      await assert.rejects(store.set(key, "", 0), RequestError, key);
    }
  });

  test("it says which program keeps the entries, and where", async (world) => {
    const { server, place } = await (await world.open()).describe();
    assert.ok(server.length > 0 && place.length > 0, `${server} ${place}`);
    assert.doesNotMatch(server, /\?/);
  });

  test("a closed store answers nothing and watches nothing", async (world) => {
    const [store, writer] = [await world.open(), await world.open()];
    const first = (await writer.set("leader", "1", 0))!;
    const seen = new Seen(store, "leader", first), other = new Seen(writer, "leader", first);
    await store.close();
    await store.close();
    await assert.rejects(store.get("leader"), StoreAwayError);
    await writer.set("leader", "2", first);
    await other.value("leader", "2");
    assert.deepEqual(seen.changes, []);
    other.stop();
  });

  test("a write whose answer is lost is read back", async (world) => {
    const store = await world.open();
    const first = (await store.set("leader", "1", 0))!;
    world.loseNextAnswer!();
    await assert.rejects(store.set("leader", "2", first), StoreAwayError);
    const there = await store.get("leader");
    assert.equal(there?.value, "2");
    assert.equal(await store.set("leader", "2", first), null, "the own write is in the way");
    assert.ok(await store.set("leader", "3", there!.revision));
  }, "loseNextAnswer");

  test("a store that is away at start is there later", async (world) => {
    await world.stop!();
    const store = await world.open();
    await assert.rejects(store.get("leader"), StoreAwayError);
    await assert.rejects(store.set("leader", "1", 0), StoreAwayError);
    await world.start!();
    await untilAnswered(() => store.set("leader", "1", 0));
    assert.equal((await store.get("leader"))?.value, "1");
  }, "stop");

  test("a restart ends the watch or lets it go on, and loses nothing", async (world) => {
    const store = await world.open();
    const first = (await store.set("leader", "1", 0))!;
    let seen = new Seen(store, "leader", first);
    await world.stop!();
    await assert.rejects(store.get("leader"), StoreAwayError);
    await world.start!();
    const there = await untilAnswered(() => store.get("leader"));
    assert.deepEqual(there, { key: "leader", value: "1", revision: first });
    await untilAnswered(() => store.set("leader", "2", first));
    const hasEnded = await Promise.race([
      seen.ended.promise.then(() => true),
      seen.value("leader", "2").then(() => false, () => true),
    ]);
    if (hasEnded) {
      seen = new Seen(store, "leader", first);
      await seen.value("leader", "2");
    }
    seen.stop();
  }, "stop");

  test("each call to a silent server ends in time", async (world) => {
    const store = await world.open();
    const first = (await store.set("leader", "1", 0))!;
    await world.silence!();
    await Promise.all([
      assert.rejects(store.get("leader"), StoreAwayError),
      assert.rejects(store.list("hosts/"), StoreAwayError),
      assert.rejects(store.set("leader", "2", first), StoreAwayError),
    ]);
    const fresh = await world.open();
    await assert.rejects(fresh.get("leader"), StoreAwayError);
    await world.unsilence!();
    const there = await untilAnswered(() => fresh.get("leader"));
    assert.ok(["1", "2"].includes(there!.value), "the write was done or not");
    await untilAnswered(() => store.get("leader"));
  }, "silence");

  test("a watch of what is compacted ends, or skips to the latest", async (world) => {
    const store = await world.open();
    const first = (await store.set("leader", "0", 0))!;
    let revision = first;
    for (let i = 1; i <= 5; i++) revision = (await store.set("leader", `${i}`, revision))!;
    await world.compact!(revision);
    const seen = new Seen(store, "leader", first);
    const end = await Promise.race([
      seen.ended.promise,
      seen.value("leader", "5").then(() => null, (error) => seen.ended.promise ?? error),
    ]);
    if (end !== null) assert.ok(end instanceof CompactedError, `${end.name}: ${end.message}`);
    seen.stop();
    const { entries, revision: latest } = await store.list("leader");
    assert.deepEqual(entries.map(({ value }) => value), ["5"]);
    const again = new Seen(store, "leader", latest);
    await store.set("leader", "6", entries[0].revision);
    await again.value("leader", "6");
    again.stop();
  }, "compact");

  test("credentials that are refused later are named", async (world) => {
    const store = await world.open();
    const first = (await store.set("leader", "1", 0))!;
    await world.revoke!();
    const error = await untilThrown(() => store.set("leader", "2", first), StoreRefusedError);
    assert.match(error.message, /credentials|password|token|user|permission|nkey/i);
    await untilThrown(() => store.get("leader"), StoreRefusedError);
    const late = await world.open();
    await untilThrown(() => late.get("leader"), StoreRefusedError);
  }, "revoke");
}

/** Repeats a call until the store, which was away, answers. */
async function untilAnswered<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof StoreAwayError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Repeats a call until it is rejected with an error of a class. */
async function untilThrown<E extends Error>(
  call: () => Promise<unknown>,
  // deno-lint-ignore no-explicit-any -- any constructor of such an error
  type: new (...args: any[]) => E,
): Promise<E> {
  for (;;) {
    try {
      await call();
    } catch (error) {
      if (error instanceof type) return error;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A test that waits for something that never happens fails, in place of the whole run. */
async function withPatience<T>(promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_, reject) => {
    const what = `nothing happened for ${PATIENCE_MS} ms`;
    timer = setTimeout(() => reject(new Error(what)), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}
