import assert from "node:assert/strict";
import type { InstanceInfo } from "../../../../src/core/protocol/instance_info.ts";
import { Random } from "../../../../src/core/random.ts";
import { listedWaiting } from "../../../../src/instance/engine/listed_waiting.ts";
import { loadStateOf } from "../../../../src/manager/load/load_state.ts";
import { pairMigrations } from "../../../../src/manager/migration/pair_migration.ts";
import type { MigrationPair } from "../../../../src/manager/migration/policy.ts";
import {
  availableBlocks,
  isStuck,
  roomBlocks,
} from "../../../../src/manager/migration/policies/room.ts";
import { randomInfos } from "../../random_info.ts";
import { idleInfo } from "../../support.ts";

const TOTAL_BLOCKS = 200;
const BLOCK_SIZE = 16;
const THRESHOLD_STEPS = 3;
const NOW_MS = 1_000_000;

interface Shape {
  /** Blocks of each running request. */
  readonly running: readonly number[];
  /** Blocks of the request at the head of the queue. */
  readonly head?: number;
  /** Those behind it: blocks, and how long each has waited. */
  readonly behind?: readonly (readonly [blocks: number, waitedMs: number])[];
  readonly waitedMs?: number;
  readonly killed?: number;
}

function instance(instanceId: string, shape: Shape): InstanceInfo {
  const { running, head = 0, waitedMs = 1, behind = [], killed = 0 } = shape;
  const waiting = head > 0 ? [[head, waitedMs], ...behind] : [];
  const usedBlocks = running.reduce((a, b) => a + b, 0);
  return idleInfo(instanceId, {
    totalBlocks: TOTAL_BLOCKS,
    usedBlocks,
    freeBlocks: TOTAL_BLOCKS - usedBlocks,
    watermarkBlocks: 0,
    runningRequests: running.length,
    runningSequenceLengths: running.map((blocks) => blocks * BLOCK_SIZE),
    waitingRequests: waiting.length,
    killedRequests: killed,
    firstWaitingBlocks: head,
    waiting: waiting.map(([blocks, ms], i) => ({
      requestId: `${instanceId}${i}`,
      blocks,
      arrivalMs: NOW_MS - ms,
    })),
    allWaitingBlocks: head,
    firstWaitingMs: head > 0 ? waitedMs : 0,
  });
}

function pairs(infos: readonly InstanceInfo[], draining: readonly string[] = []): string[] {
  return pairsOf(infos, draining).map(({ source, destination }) => `${source}>${destination}`);
}

/** The pairs with their aims, and whom they name. */
function aims(infos: readonly InstanceInfo[]): string[] {
  return pairsOf(infos).map(({ source, destination, aim, requestId }) =>
    `${source}>${destination} ${aim}${requestId ? ` ${requestId}` : ""}`
  );
}

function pairsOf(
  infos: readonly InstanceInfo[],
  draining: readonly string[] = [],
): MigrationPair[] {
  const candidates = infos.map((info) => ({
    instanceId: info.instanceId,
    instanceType: info.instanceType,
    state: loadStateOf(info, { isDraining: draining.includes(info.instanceId) }),
    killedRequests: info.killedRequests,
    lastRunningBlocks: info.lastRunningBlocks,
    firstWaitingMs: info.firstWaitingMs,
    waiting: info.waiting,
    runningSequenceLengths: info.runningSequenceLengths,
    blockSize: BLOCK_SIZE,
    hostName: null,
    isHostDrained: false,
    isMigrating: false,
    isBackendReady: true,
  }));
  return pairMigrations(candidates, {
    loadMetric: "virtual_usage",
    pairMigrationPolicy: "waiting_first",
    enableDefrag: true,
    migrateOutThreshold: THRESHOLD_STEPS,
    enablePdDisagg: false,
  });
}

Deno.test("room: what is available, less the steps of the threshold for what runs", () => {
  const info = { ...instance("a", { running: [50, 50] }), watermarkBlocks: 10 };
  const state = loadStateOf(info);
  assert.equal(availableBlocks(state), 90);
  assert.equal(roomBlocks(state, "virtual_usage", 3), 90 - 3 * 2);
  assert.equal(roomBlocks(state, "remaining_steps", 100), -110);
  assert.equal(roomBlocks(state, "usage_ratio", 0.8), 90 - 40);
  assert.ok(!isStuck(state));
});

Deno.test("waiting_first: what waits goes where it fits best, not to the freest", () => {
  const a = instance("a", { running: [150], head: 80 });
  const roomy = instance("b", { running: [20] });
  const enough = instance("c", { running: [100] });
  const small = instance("d", { running: [130] });
  assert.deepEqual(pairs([a, roomy, enough, small]), ["a>c"]);
});

Deno.test("waiting_first: who has waited longest is first", () => {
  const young = instance("a", { running: [150], head: 80, waitedMs: 10 });
  const old = instance("b", { running: [150], head: 80, waitedMs: 20 });
  assert.deepEqual(pairs([young, old, instance("c", { running: [100] })]), ["b>c"]);
});

Deno.test("waiting_first: nothing that waits goes where others wait, or were preempted", () => {
  const a = instance("a", { running: [190], head: 80, waitedMs: 5 });
  const queue = instance("b", { running: [100], head: 1, waitedMs: 9 }); // it waits for its turn
  assert.deepEqual(pairs([a, queue, instance("c", { running: [20] })]), ["a>c"]);
  assert.deepEqual(
    pairs([a, instance("c", { running: [10], head: 1, waitedMs: 9, killed: 1 })]),
    [],
  );
});

Deno.test("waiting_first: where nothing fits the one request leaves that makes the room", () => {
  // 60 are missing: 65 has to go, and fits c better than b.
  const a = instance("a", { running: [10, 65, 85], head: 100 });
  const b = instance("b", { running: [110] });
  const c = instance("c", { running: [130] });
  const d = instance("d", { running: [140] });
  assert.deepEqual(pairs([a, b, c, d]), ["a>c"]);
});

Deno.test("waiting_first: room is made where a younger request waits in vain, and not an older", () => {
  const source = instance("a", { running: [65, 95], head: 100, waitedMs: 50 });
  const other = (waitedMs: number) => instance("b", { running: [130], head: 120, waitedMs });
  assert.deepEqual(pairs([source, other(10)]), ["a>b"]);
  const helpsOlder = pairs([source, other(60)]);
  assert.ok(!helpsOlder.includes("a>b"), helpsOlder.join());
});

Deno.test("waiting_first: for the first for which no single request makes room, little by little", () => {
  // 60 are missing, and each request has 40: one leaves for the roomiest.
  const old = instance("a", { running: [40, 40, 40, 40], head: 100, waitedMs: 9 });
  const young = instance("b", { running: [40, 40, 40, 40], head: 100, waitedMs: 8 });
  const c = instance("c", { running: [120] }), d = instance("d", { running: [130] });
  // The others go on by their load.
  assert.deepEqual(pairs([young, old, c, d]), ["a>c", "b>d"]);
});

Deno.test("waiting_first: who is short of blocks gives before one that waits is helped", () => {
  // Two run and one block is free; a waits for c's room as well.
  const a = instance("a", { running: [150], head: 80 });
  const short = instance("b", { running: [60, 139] });
  const c = instance("c", { running: [100] });
  assert.deepEqual(pairs([a, short, c]), ["b>c"]);
  assert.deepEqual(pairs([a, instance("b", { running: [60, 138] }), c]), ["a>c"]);
  assert.deepEqual(pairs([a, instance("b", { running: [199] }), c]), ["a>c"], "it runs alone");
});

Deno.test("waiting_first: who is short gives where one waits in vain, but for the oldest", () => {
  const short = instance("a", { running: [40, 159] });
  const young = instance("b", { running: [150], head: 80, waitedMs: 5 });
  const old = instance("c", { running: [140], head: 80, waitedMs: 9 });
  assert.deepEqual(pairs([short, young, old]), ["a>b"], "c has more room");
  assert.ok(!pairs([short, old]).includes("a>c"));
});

Deno.test("waiting_first: who has waited for two minutes is helped before who is short", () => {
  const overdue = instance("a", { running: [150], head: 80, waitedMs: 120_000 });
  const short = instance("b", { running: [60, 139] });
  assert.deepEqual(pairs([overdue, short, instance("c", { running: [100] })]), ["a>c"]);
});

Deno.test("waiting_first: what waits goes before a younger one that waits in vain", () => {
  const old = instance("a", { running: [180], head: 40, waitedMs: 9 });
  const other = (waitedMs: number) => instance("b", { running: [150], head: 90, waitedMs });
  assert.deepEqual(pairs([old, other(5)]), ["a>b"]);
  assert.deepEqual(pairs([old, other(10)]), []);
});

Deno.test("waiting_first: a smaller one leaves from behind a head that fits nowhere", () => {
  const a = (blocks: number) =>
    instance("a", { running: [190], head: 120, behind: [[blocks, 1], [20, 0]] });
  const enough = instance("b", { running: [170] });
  const roomy = instance("c", { running: [100] });
  assert.deepEqual(aims([a(20), roomy, enough]), ["a>b waiting a1"]);
  assert.deepEqual(aims([a(30), roomy, enough]), ["a>c waiting a1"], "older than what would fit b");
});

Deno.test("waiting_first: the oldest of all that fit is first, also behind a head; no younger one passes", () => {
  const a = instance("a", { running: [190], head: 120, waitedMs: 9, behind: [[20, 6]] });
  const b = instance("b", { running: [190], head: 20, waitedMs: 5 });
  assert.deepEqual(aims([a, b, instance("c", { running: [170] })]), ["a>c waiting a1"]);
  const other = (waitedMs: number) => instance("c", { running: [170], head: 40, waitedMs });
  assert.deepEqual(aims([a, other(5)]), ["a>c waiting a1"]);
  assert.deepEqual(aims([a, other(7)]), [], "it would pass the head there");
});

Deno.test("waiting_first: nothing waits before any in a queue, also behind a younger head of high priority", () => {
  const a = instance("a", { running: [190], head: 80, waitedMs: 6 });
  const other = (waitedMs: number) =>
    instance("c", { running: [100], head: 120, waitedMs: 1, behind: [[20, waitedMs]] });
  assert.deepEqual(aims([a, other(5)]), ["a>c waiting a0"]);
  assert.deepEqual(aims([a, other(7)]), [], "c would refuse it");
});

Deno.test("waiting_first: what is about to leave a queue is stuck no more, however short blocks are", () => {
  const full = instance("a", { running: [100, 98] });
  const leaving = { ...full, waitingRequests: 1, watermarkBlocks: 10 };
  assert.ok(!isStuck(loadStateOf(leaving)));
  assert.deepEqual(aims([leaving, instance("b", { running: [100] })]), ["a>b undefined"]);
});

Deno.test("waiting_first: pairs say what they are for; those by load do not", () => {
  const b = instance("b", { running: [100] });
  assert.deepEqual(aims([instance("a", { running: [150], head: 80 }), b]), ["a>b waiting a0"]);
  assert.deepEqual(aims([instance("a", { running: [80, 85], head: 110 }), b]), ["a>b room"]);
  const small = instance("a", { running: [150], head: 120, behind: [[90, 0]] });
  assert.deepEqual(aims([small, b]), ["a>b waiting a1"]);
  const large = instance("a", { running: [40, 41, 42, 43], head: 150 });
  assert.deepEqual(aims([large, b]), ["a>b room"], "little by little");
  const short = { running: [60, 139], head: 80, waitedMs: 119_999 };
  assert.deepEqual(aims([instance("a", short), b]), ["a>b shortest"]);
  assert.deepEqual(aims([instance("a", { ...short, waitedMs: 120_000 }), b]), ["a>b waiting a0"]);
  assert.deepEqual(aims([instance("a", { running: [100, 98] }), b]), ["a>b undefined"]);
});

Deno.test("waiting_first: without anything stuck it is defrag_constrained", () => {
  const full = instance("a", { running: [100, 98] });
  assert.deepEqual(pairs([full, instance("b", { running: [50] })]), ["a>b"]);
  assert.deepEqual(pairs([instance("a", { running: [100] }), instance("b", { running: [] })]), []);
});

Deno.test("waiting_first: nobody is in two pairs, drains and takes, or takes what does not fit", () => {
  const random = new Random(3);
  let helped = 0, numNamed = 0;
  for (let i = 0; i < 3000; i++) {
    const infos = randomInfos(random, 2 + random.below(7)).map((info) => ({
      ...info,
      firstWaitingMs: info.waiting.length > 0 ? 5 - info.waiting[0].arrivalMs : 0,
      waiting: info.waiting.map((request, i) =>
        i === 0 ? request : { ...request, blocks: (1 + random.below(12)) / 4 }
      ),
      runningSequenceLengths: Array.from(
        { length: info.runningRequests },
        () => 1 + random.below(BLOCK_SIZE * 8),
      ),
    }));
    const draining = infos.filter(() => random.below(6) === 0).map((info) => info.instanceId);
    const found = pairsOf(infos, draining);
    const names = found.flatMap(({ source, destination }) => [source, destination]);
    assert.equal(new Set(names).size, names.length, JSON.stringify(found));
    const room = (info: InstanceInfo) =>
      roomBlocks(loadStateOf(info), "virtual_usage", THRESHOLD_STEPS);
    for (const { aim, requestId, ...pair } of found) {
      const [source, destination] = [pair.source, pair.destination]
        .map((id) => infos.find((info) => info.instanceId === id)!);
      assert.ok(!draining.includes(destination.instanceId) && destination.killedRequests === 0);
      if (isStuck(loadStateOf(source))) helped++;
      if (aim !== "waiting") continue;
      const { blocks, arrivalMs } = source.waiting.find((one) => one.requestId === requestId)!;
      assert.ok(Math.ceil(blocks) <= room(destination));
      assert.ok(destination.waiting.every((other) => other.arrivalMs > arrivalMs));
      numNamed++;
    }
    // Who is stuck and would fit somewhere is left out only for others that were.
    const unhelped = infos.filter((info) =>
      isStuck(loadStateOf(info)) && !draining.includes(info.instanceId) &&
      !names.includes(info.instanceId)
    );
    for (const source of unhelped) {
      const fit = infos.find((info) =>
        info !== source && !names.includes(info.instanceId) && info.waitingRequests === 0 &&
        info.killedRequests === 0 && !draining.includes(info.instanceId) &&
        room(info) >= Math.ceil(source.firstWaitingBlocks)
      );
      assert.equal(fit, undefined, JSON.stringify({ source, fit }));
    }
  }
  const isWorthIt = helped > 500 && numNamed > 200;
  assert.ok(isWorthIt, `the cases are worth their time: ${helped}, ${numNamed}`);
});

Deno.test("waiting_first: pairs the same whether reports list all that wait or what may go first", () => {
  const random = new Random(4);
  let numShorter = 0, numNamed = 0;
  for (let i = 0; i < 2000; i++) {
    const all = randomInfos(random, 2 + random.below(7)).map((info) => {
      const blocks = [
        info.firstWaitingBlocks,
        ...Array.from({ length: 6 }, () => random.below(12)),
      ];
      const waiting = info.waitingRequests === 0 ? [] : blocks.map((blocks, i) => ({
        requestId: `${info.instanceId}${i}`,
        blocks: i === 0 ? blocks : (1 + blocks) / 4,
        arrivalMs: random.below(9),
      }));
      if (random.below(2) === 0) waiting.sort((a, b) => a.arrivalMs - b.arrivalMs); // one priority
      return { ...info, waiting };
    });
    const listed = all.map((info) => ({
      ...info,
      waiting: listedWaiting(
        info.waiting.map((one) => ({ ...one, lengthTokens: one.blocks * BLOCK_SIZE })),
        BLOCK_SIZE,
      ),
    }));
    const found = pairsOf(all);
    assert.deepEqual(pairsOf(listed), found);
    numShorter += listed.filter(({ waiting }, i) => waiting.length < all[i].waiting.length).length;
    numNamed += found.filter(({ requestId }) => requestId !== undefined).length;
  }
  assert.ok(numShorter > 1000 && numNamed > 200, `${numShorter}, ${numNamed}`);
});
