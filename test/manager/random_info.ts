import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import type { Random } from "../../src/core/random.ts";
import { idleInfo } from "./support.ts";

/** A report of an instance in any state; numbers are small, so that equal loads happen. */
export function randomInfo(random: Random, instanceId: string): InstanceInfo {
  const totalBlocks = 8 + random.below(40);
  const isIdle = random.below(4) === 0;
  const usedBlocks = isIdle ? 0 : random.below(totalBlocks + 1);
  const runningRequests = isIdle || usedBlocks === 0 ? 0 : random.below(5);
  const waitingRequests = isIdle ? 0 : random.below(4);
  const firstWaitingBlocks = waitingRequests === 0 ? 0 : (1 + random.below(12)) / 4;
  return idleInfo(instanceId, {
    totalBlocks,
    usedBlocks,
    freeBlocks: totalBlocks - usedBlocks,
    watermarkBlocks: random.below(3),
    runningRequests,
    runningHighPriorityRequests: random.below(runningRequests + 1),
    waitingRequests,
    killedRequests: random.below(4) === 0 ? random.below(waitingRequests + 1) : 0,
    firstWaitingBlocks,
    waiting: Array.from({ length: waitingRequests }, (_, i) => ({
      requestId: `${instanceId}-${i}`,
      blocks: firstWaitingBlocks,
      arrivalMs: random.below(5),
    })).sort((a, b) => a.arrivalMs - b.arrivalMs),
    allWaitingBlocks: firstWaitingBlocks * Math.max(1, waitingRequests),
    lastRunningBlocks: runningRequests === 0 ? 0 : 1 + random.below(4),
  });
}

/** Reports of `a`, `b`, ... */
export function randomInfos(random: Random, count: number): InstanceInfo[] {
  return Array.from({ length: count }, (_, i) => randomInfo(random, String.fromCharCode(97 + i)));
}
