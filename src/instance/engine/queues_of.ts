import type { RequestQueues } from "../llumlet/request_choice/policy.ts";
import type { BlockManager } from "./block_manager.ts";
import type { Scheduler } from "./scheduler.ts";

/** A scheduler's queues in the form in which request migration policies see them. */
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
      isDecoding: sequence.numComputedTokens > 0 && !sequence.isPrefilling,
      hasReachedExpectedSteps: sequence.hasReachedExpectedSteps,
      isMigrating: false, // no request is chosen while another one migrates
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
