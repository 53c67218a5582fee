import assert from "node:assert/strict";
import type { DestinationRoom, Priority } from "../../../src/core/messages.ts";
import { Random } from "../../../src/core/random.ts";
import {
  chooseRequests,
  type RequestQueues,
  type RunningRequest,
} from "../../../src/instance/request_choice/request_choice.ts";

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
    waiting: waiting.map((blocks) => ({
      requestId: `w${blocks}`,
      blocks,
      wasTried: true,
      isMigrating: false,
    })),
  };
}

function choose(queues: RequestQueues, runningBlocks: number, waitingBlocks = runningBlocks) {
  const room: DestinationRoom = { runningBlocks, waitingBlocks };
  return chooseRequests(queues, "FIT", room).requestIds.join(" ");
}

Deno.test("FIT: the first waiting request that the destination has room for", () => {
  const queues = queuesOf([4, 9], [50, 30, 20], 10);
  assert.equal(choose(queues, 60), "w50");
  assert.equal(choose(queues, 30), "w30", "the head stays: it would be the first here too");
  assert.equal(choose(queues, 25), "w20");
});

Deno.test("FIT: where no waiting one fits, the smallest that alone makes room for the head", () => {
  const queues = queuesOf([8, 45, 60, 41], [50], 10); // 40 are missing
  assert.equal(choose(queues, 100, 0), "r41", "others wait there, so that no waiting one may come");
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

Deno.test("FIT: what is chosen fits, waits only while the head is stuck, and is never needless", () => {
  const random = new Random(1);
  const blocks = () => 1 + random.below(30);
  for (let i = 0; i < 2000; i++) {
    const queues = queuesOf(
      [...new Set(Array.from({ length: random.below(6) }, blocks))],
      [...new Set(Array.from({ length: random.below(4) }, blocks))],
      random.below(30),
    );
    const room = { runningBlocks: random.below(30), waitingBlocks: random.below(30) };
    const { requestIds, mustLeave } = chooseRequests(queues, "FIT", room);
    assert.ok(!mustLeave && requestIds.length <= 1);
    const [head] = queues.waiting;
    const isStuck = head !== undefined && head.blocks > queues.availableBlocks;
    const fits = queues.running.filter((one) => one.blocks <= room.runningBlocks);
    const waits = queues.waiting.filter((one) => one.blocks <= room.waitingBlocks);
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
