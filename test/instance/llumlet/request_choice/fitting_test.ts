import assert from "node:assert/strict";
import type { Priority } from "../../../../src/core/protocol/generate.ts";
import type { MigrationAim } from "../../../../src/core/protocol/migration.ts";
import { Random } from "../../../../src/core/random.ts";
import type {
  RequestQueues,
  RunningRequest,
} from "../../../../src/instance/llumlet/request_choice/policy.ts";
import { chooseRequests } from "../../../../src/instance/llumlet/request_choice/request_choice.ts";

/** Requests named by their blocks: running ones, and those that wait. */
function queuesOf(
  running: readonly number[],
  waiting: readonly number[],
  availableBlocks: number,
  priorities: readonly Priority[] = [],
): RequestQueues {
  return {
    availableBlocks,
    running: running.map((blocks, i): RunningRequest => ({
      requestId: `r${blocks}`,
      priority: priorities[i] ?? "normal",
      arrivalMs: i,
      lengthTokens: blocks * 16,
      blocks,
      isDecoding: true,
      hasReachedExpectedSteps: false,
      isMigrating: false,
    })),
    waiting: waiting.map((blocks, i) => ({
      requestId: `w${blocks}`,
      arrivalMs: 10 * (i + 1),
      blocks,
      wasTried: true,
      isMigrating: false,
    })),
  };
}

/** @param firstArrivalMs there; here requests that wait came at 10, 20, ... */
function choose(
  queues: RequestQueues,
  blocks: number,
  firstArrivalMs: number | null = null,
  aim?: MigrationAim,
) {
  const { requestIds } = chooseRequests(queues, "FIT", { room: { blocks, firstArrivalMs }, aim });
  return requestIds.join(" ");
}

Deno.test("FIT: the first waiting request that the destination has room for", () => {
  const queues = queuesOf([4, 9], [50, 30, 20], 10);
  assert.equal(choose(queues, 60), "w50");
  assert.equal(choose(queues, 30), "w30", "the head stays: it would be the first here too");
  assert.equal(choose(queues, 25), "w20");
  assert.equal(choose(queues, 60, 11), "w50");
  assert.equal(choose(queues, 30, 21), "w30");
  assert.equal(choose(queues, 30, 20), "r9", "what waits there is as old, though younger than w50");
});

Deno.test("FIT: where no waiting one fits, the smallest that alone makes room for the head", () => {
  const queues = queuesOf([8, 45, 60, 41], [50], 10); // 40 are missing
  assert.equal(
    choose(queues, 100, 0),
    "r41",
    "older ones wait there, so that no waiting one may come",
  );
  assert.equal(choose(queues, 45), "r41");
  assert.equal(choose(queues, 40), "r8", "none that is enough fits: the largest that does");
  assert.equal(choose(queues, 7), "");
});

Deno.test("FIT: while the head fits here, or nothing waits, the shortest that fits there", () => {
  assert.equal(choose(queuesOf([12, 4, 9], [5], 10), 100), "r4");
  assert.equal(choose(queuesOf([12, 4, 9], [], 0), 100), "r4");
  assert.equal(choose(queuesOf([12, 4, 9], [], 0), 3), "");
});

Deno.test("FIT: where blocks are short the shortest running one leaves, also before the head", () => {
  assert.equal(choose(queuesOf([12, 4, 9], [5], 2), 100), "r4");
  assert.equal(choose(queuesOf([12, 4, 9], [5], 3), 100), "w5", "each can get one more");
  assert.equal(choose(queuesOf([12], [5], 0), 100), "w5", "it has the instance to itself");
  assert.equal(choose(queuesOf([12, 9], [5], 0), 8), "w5", "none fits there");
});

Deno.test("FIT: high priority leaves only where no normal one fits", () => {
  const queues = queuesOf([40, 8], [50], 10, ["high", "normal"]);
  assert.equal(choose(queues, 100, 0), "r8", "although it is not enough");
  assert.equal(choose(queuesOf([40, 60], [50], 10, ["high", "normal"]), 40, 0), "r40");
});

Deno.test("FIT: only what the order aims at", () => {
  const chosen = (queues: RequestQueues, blocks = 100, firstArrivalMs: number | null = null) =>
    (["waiting", "room", "shortest"] as const)
      .map((aim) => choose(queues, blocks, firstArrivalMs, aim) || "-").join(" ");
  const stuck = queuesOf([8, 45, 60, 41], [50, 30], 10); // 40 are missing
  assert.equal(chosen(stuck), "w50 r41 r8");
  assert.equal(chosen(stuck, 40), "w30 r8 r8");
  assert.equal(chosen(stuck, 100, 10), "- r41 r8");
  assert.equal(chosen(stuck, 7), "- - -");
  assert.equal(chosen(queuesOf([40, 41, 43, 73], [50], 3)), "w50 r73 r40", "blocks are short");
  assert.equal(chosen(queuesOf([8, 45], [5], 10)), "- - r8", "the head fits by now");
  assert.equal(chosen(queuesOf([8, 45], [], 10)), "- - r8");
});

Deno.test("FIT: of those that wait only the one that the order names", () => {
  const queues = queuesOf([8], [50, 30, 20], 10);
  const named = (requestId: string, blocks = 100) =>
    chooseRequests(queues, "FIT", {
      room: { blocks, firstArrivalMs: null },
      aim: "waiting",
      requestId,
    }).requestIds.join(" ");
  assert.equal(named("w30"), "w30");
  assert.equal(named("w30", 29), "", "it does not fit there");
  assert.equal(named("r8"), "", "it runs by now");
});

Deno.test("FIT: what is chosen fits, waits only while the head is stuck, and is never needless", () => {
  const random = new Random(1);
  const blocks = () => 1 + random.below(30);
  for (let i = 0; i < 2000; i++) {
    const queues = queuesOf(
      [...new Set(Array.from({ length: random.below(6) }, blocks))],
      [...new Set(Array.from({ length: random.below(4) }, blocks))],
      random.below(30),
    );
    const room = { blocks: random.below(30), firstArrivalMs: random.below(45) };
    const { requestIds, mustLeave } = chooseRequests(queues, "FIT", { room });
    assert.ok(!mustLeave && requestIds.length <= 1);
    const [head] = queues.waiting;
    const isStuck = head !== undefined && head.blocks > queues.availableBlocks;
    const fits = queues.running.filter((one) => one.blocks <= room.blocks);
    const waits = queues.waiting.filter((one) =>
      one.blocks <= room.blocks && one.arrivalMs < room.firstArrivalMs
    );
    const numRunning = queues.running.length;
    const isShort = numRunning > 1 && queues.availableBlocks < numRunning && fits.length > 0;
    if (requestIds.length === 0) {
      assert.ok(fits.length === 0 && (!isStuck || waits.length === 0));
      continue;
    }
    const running = fits.find(({ requestId }) => requestId === requestIds[0]);
    if (isStuck && !isShort && waits.length > 0) assert.equal(requestIds[0], waits[0].requestId);
    else assert.ok(running, "it runs, and fits");
    if (!running || !isStuck || isShort) continue;
    // No smaller one would do.
    const missing = head.blocks - queues.availableBlocks;
    const other = fits.find((one) => one.blocks >= missing && one.blocks < running.blocks);
    assert.equal(other, undefined);
  }
});
