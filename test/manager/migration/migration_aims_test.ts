/** What orders of waiting_first make FIT choose: the pairing, the order and the choice together. */
import assert from "node:assert/strict";
import type { InstanceInfo } from "../../../src/core/protocol/instance_info.ts";
import type { RequestQueues } from "../../../src/instance/llumlet/request_choice/policy.ts";
import { chooseRequests } from "../../../src/instance/llumlet/request_choice/request_choice.ts";
import { FakeCluster, migration } from "../fake_cluster.ts";
import { managerOptions } from "../support.ts";

const TOTAL_BLOCKS = 200;
const BLOCK_SIZE = 16;

/** Requests by their blocks. */
interface Queues {
  readonly running: readonly number[];
  readonly waiting: readonly { readonly blocks: number; readonly waitedMs: number }[];
}

function usedBlocks({ running }: Queues): number {
  return running.reduce((a, b) => a + b, 0);
}

function infoOf(queues: Queues, timestampMs: number): Partial<InstanceInfo> {
  const { running, waiting } = queues;
  const blocks = waiting.map((one) => one.blocks);
  return {
    timestampMs,
    totalBlocks: TOTAL_BLOCKS,
    usedBlocks: usedBlocks(queues),
    freeBlocks: TOTAL_BLOCKS - usedBlocks(queues),
    watermarkBlocks: 0,
    runningRequests: running.length,
    runningSequenceLengths: running.map((one) => one * BLOCK_SIZE),
    waitingRequests: waiting.length,
    firstWaitingBlocks: blocks.at(0) ?? 0,
    waiting: requestsOf(queues, timestampMs).waiting,
    allWaitingBlocks: blocks.reduce((a, b) => a + b, 0),
    firstWaitingMs: waiting.at(0)?.waitedMs ?? 0,
  };
}

function requestsOf(queues: Queues, nowMs: number): RequestQueues {
  return {
    availableBlocks: TOTAL_BLOCKS - usedBlocks(queues),
    running: queues.running.map((blocks) => ({
      requestId: `r${blocks}`,
      priority: "normal",
      arrivalMs: 0,
      lengthTokens: blocks * BLOCK_SIZE,
      blocks,
      isDecoding: true,
      hasReachedExpectedSteps: false,
      isMigrating: false,
    })),
    waiting: queues.waiting.map(({ blocks, waitedMs }) => ({
      requestId: `w${blocks}`,
      arrivalMs: nowMs - waitedMs,
      wasTried: true,
      blocks,
      isMigrating: false,
    })),
  };
}

/** What the first order makes the source choose. */
async function chosen(sourceQueues: Queues, destinationQueues: Queues): Promise<string> {
  const cluster = new FakeCluster(1, {
    options: { ...managerOptions, loadMetric: "virtual_usage" },
    migration: {
      ...migration,
      pairMigrationPolicy: "waiting_first",
      requestMigrationPolicy: "FIT",
    },
  });
  await cluster.start();
  const requests = ["a", "b"].map((id) => cluster.submit(id, 10_000)); // round robin
  await cluster.until(() => requests.every(({ numTokens }) => numTokens > 0));
  const [source, destination] = cluster.instances.values();
  const nowMs = source.node.clock.nowMs();
  source.info = infoOf(sourceQueues, nowMs);
  destination.info = infoOf(destinationQueues, nowMs);
  source.orders.length = 0;
  await cluster.until(() => source.orders.length > 0);
  const [order] = source.orders;
  return chooseRequests(requestsOf(sourceQueues, nowMs), order.policy, order).requestIds.join(" ");
}

Deno.test("FIT: who has waited for two minutes is helped also where blocks are short", async () => {
  const source = (head: number, running = [40, 41, 43, 73]) => ({
    running,
    waiting: [{ blocks: head, waitedMs: 300_000 }],
  });
  assert.equal(await chosen(source(50), { running: [100], waiting: [] }), "w50");
  const makesRoom = source(101, [24, 73, 100]); // 98 are missing, and there is room for 100
  assert.equal(await chosen(makesRoom, { running: [97], waiting: [] }), "r100");
  const littleByLittle = source(100); // 97 are missing
  assert.equal(await chosen(littleByLittle, { running: [120], waiting: [] }), "r73");
});

Deno.test("FIT: what makes room goes to where one waits in vain, and what waits if it is older", async () => {
  const source = (waitedMs: number) => ({
    running: [65, 95],
    waiting: [{ blocks: 100, waitedMs: 50_000 }, { blocks: 30, waitedMs }],
  });
  const destination = { running: [130], waiting: [{ blocks: 120, waitedMs: 10_000 }] };
  assert.equal(await chosen(source(5_000), destination), "r65");
  const w30 = await chosen(source(40_000), destination);
  assert.equal(w30, "w30", "it passes its own head, and is older than the one there");
});

Deno.test("FIT: where blocks are short the shortest leaves, and nothing that waits", async () => {
  const source = { running: [40, 80, 79], waiting: [{ blocks: 60, waitedMs: 1_000 }] };
  assert.equal(await chosen(source, { running: [100], waiting: [] }), "r40");
});
