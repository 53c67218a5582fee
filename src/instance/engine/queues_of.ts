import type { RequestQueues } from "../llumlet/request_choice/policy.ts";
import type { BlockManager } from "./block_manager.ts";
import type { Scheduler } from "./scheduler.ts";

/** What the choice of a request to migrate sees of a scheduler's queues. */
export function queuesOf(
  { running, waiting }: Scheduler,
  blocks: BlockManager,
): RequestQueues {
  return {
    running: running.map((sequence) => ({
      requestId: sequence.requestId,
      priority: sequence.priority,
      arrivalMs: sequence.arrivalMs,
      lengthTokens: sequence.lengthTokens,
      blocks: sequence.blocks.length,
      isDecoding: sequence.numComputedTokens > 0,
      hasReachedExpectedSteps: sequence.hasReachedExpectedSteps,
      isMigrating: false, // one at a time, and none is chosen meanwhile
    })),
    waiting: waiting.map(({ requestId, wasTried, arrivalMs, lengthTokens }) => ({
      requestId,
      wasTried,
      arrivalMs,
      blocks: blocks.blocksFor(lengthTokens),
      isMigrating: false,
    })),
    availableBlocks: blocks.freeBlocks - blocks.watermarkBlocks,
  };
}
