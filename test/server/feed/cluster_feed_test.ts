import assert from "node:assert/strict";
import { settlePromises, turnEventLoop } from "../../../src/sim/clock/settle_promises.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import {
  ClusterFeed,
  type FeedReader,
  MAX_READERS,
} from "../../../src/server/feed/cluster_feed.ts";
import type { FeedState, FeedTick } from "../../../src/server/feed/records.ts";
import { FakeCluster, moved, request } from "./_fake_cluster.ts";

class Reader implements FeedReader {
  congested = false;
  hasEnded = false;
  readonly texts: string[] = [];

  push(text: string): void {
    this.texts.push(text);
  }

  end(): void {
    this.hasEnded = true;
  }

  get names(): string[] {
    return this.texts.map((text) => /^event: (\w+)\n/.exec(text)![1]);
  }

  get last(): FeedState & FeedTick {
    return JSON.parse(/^event: \w+\ndata: (.*)\n\n$/.exec(this.texts.at(-1)!)![1]);
  }
}

async function withFeed(
  test: (parts: {
    feed: ClusterFeed;
    cluster: FakeCluster;
    reader: Reader;
    pass: (ms: number) => Promise<void>;
  }) => Promise<void>,
): Promise<void> {
  const cluster = new FakeCluster(), clock = new VirtualClock(1e9), reader = new Reader();
  const feed = new ClusterFeed(cluster, clock, { version: "1", model: "m", hasAdmin: true });
  feed.start();
  async function pass(ms: number) {
    await turnEventLoop();
    const untilMs = clock.nowMs() + ms;
    let isOver = false;
    clock.after(ms, () => isOver = true);
    while (!isOver) {
      await settlePromises();
      clock.step();
    }
    await settlePromises();
    assert.equal(clock.nowMs(), untilMs);
  }
  try {
    await test({ feed, cluster, reader, pass });
  } finally {
    feed.close();
  }
}

Deno.test("a reader gets the state soon, then what changes", () =>
  withFeed(async ({ feed, cluster, reader, pass }) => {
    await feed.requests.submit(request("r"), () => {});
    cluster.places.set("r", "a");
    await pass(5_000);
    assert.equal(cluster.numStates, 0, "nobody reads");
    feed.open(reader, "a");
    await pass(100);
    assert.deepEqual(reader.names, ["state"]);
    const [shown] = reader.last.requests;
    assert.deepEqual([shown.id, shown.instance, shown.isRunning], ["r", "a", false]);
    assert.equal(reader.last.model, "m");
    const { hosts: [{ name, state }], leadership } = reader.last;
    assert.deepEqual([name, state], ["gpu-1", "serving"]);
    const storeProblem = null;
    assert.deepEqual(leadership, { leader: "gpu-1-7-abcdef01", epoch: 3, storeProblem });
    assert.equal(reader.last.points.length, 2, "it counted before");

    cluster.output("r", 10);
    cluster.places.set("r", "b");
    cluster.happens(moved);
    await pass(500);
    assert.deepEqual(reader.names, ["state", "tick"]);
    assert.deepEqual(reader.last.changed, [[shown.key, "b", 1, 10]]);
    assert.deepEqual(reader.last.moves, [{
      key: shown.key,
      from: "a",
      to: "b",
      downtimeMs: 2.5,
      totalMs: 9,
      bytes: 4_000,
      tokens: 20,
    }]);
    cluster.output("r", 1, true);
    await pass(500);
    assert.deepEqual(reader.last.ended, [shown.key]);
    assert.equal(reader.last.summary.migrations, 1);
    assert.equal(reader.last.summary.worstDowntimeMs, 2.5);
  }));

Deno.test("all readers of a tick get the same text", () =>
  withFeed(async ({ feed, reader, pass }) => {
    const second = new Reader();
    feed.open(reader, "a");
    feed.open(second, "a");
    await pass(3_000);
    assert.ok(reader.texts.length >= 5);
    assert.deepEqual(reader.texts, second.texts);
  }));

Deno.test("a slow reader is sent nothing, then a whole state; one that never reads is cut off", () =>
  withFeed(async ({ feed, reader, pass }) => {
    feed.open(reader, "a");
    await pass(600);
    reader.congested = true;
    const before = reader.texts.length;
    await pass(5_000);
    assert.equal(reader.texts.length, before);
    reader.congested = false;
    await pass(1_000);
    assert.deepEqual(reader.names.slice(before), ["state", "tick"]);
    reader.congested = true;
    await pass(29_000);
    assert.equal(reader.hasEnded, false);
    await pass(2_000);
    assert.equal(reader.hasEnded, true);
  }));

Deno.test("readers are counted; one that leaves makes room", () =>
  withFeed(async ({ feed, pass }) => {
    const leave = Array.from({ length: MAX_READERS }, () => feed.open(new Reader(), "a"));
    assert.equal(feed.hasPlaceFor("a"), false);
    leave[0]();
    assert.equal(feed.hasPlaceFor("a"), true);
    await pass(100);
  }));

Deno.test("an address with many readers does not keep others out", () =>
  withFeed(async ({ feed, pass }) => {
    const many = Array.from({ length: MAX_READERS }, () => new Reader());
    for (const reader of many) feed.open(reader, "a");
    const others = Array.from({ length: MAX_READERS / 2 }, () => new Reader());
    for (const reader of others) {
      assert.ok(feed.hasPlaceFor("b"));
      feed.open(reader, "b");
    }
    assert.equal(feed.hasPlaceFor("b"), false);
    assert.equal(feed.hasPlaceFor("c"), true);
    assert.equal(many.filter(({ hasEnded }) => hasEnded).length, MAX_READERS / 2);
    assert.ok(others.every(({ hasEnded }) => !hasEnded));
    await pass(100);
  }));

Deno.test("a manager that does not answer is told once, and again when it is back", () =>
  withFeed(async ({ feed, cluster, reader, pass }) => {
    feed.open(reader, "a");
    cluster.isManagerGone = true;
    await pass(3_000);
    assert.equal(reader.last.isManagerGone, true);
    cluster.isManagerGone = false;
    await pass(1_000);
    assert.equal(reader.last.isManagerGone, false);
    const late = new Reader();
    feed.open(late, "a");
    await pass(600);
    const [state] = late.texts;
    assert.equal(state.match(/The manager does not answer/g)?.length, 1);
    assert.equal(state.match(/The manager is back/g)?.length, 1);
  }));

Deno.test("closing ends all streams, and nothing ticks any more", () =>
  withFeed(async ({ feed, reader, pass }) => {
    feed.open(reader, "a");
    await pass(600);
    feed.close();
    const before = reader.texts.length;
    const late = new Reader();
    feed.open(late, "a");
    await pass(5_000);
    assert.deepEqual([reader.hasEnded, late.hasEnded], [true, true]);
    assert.deepEqual([reader.texts.length, late.texts.length], [before, 0]);
  }));
