import type { RequestQueues } from "./request_choice/request_choice.ts";
import type { Scheduler } from "./scheduler.ts";

/** What the choice of a request to migrate sees of a scheduler's queues. */
export function queuesOf({ running, waiting }: Scheduler): RequestQueues {
  return {
    running: running.map((sequence) => ({
      requestId: sequence.requestId,
      priority: sequence.priority,
      arrivalMs: sequence.arrivalMs,
      lengthTokens: sequence.lengthTokens,
      isDecoding: sequence.numComputedTokens > 0,
      hasReachedExpectedSteps: sequence.isLeaving,
      isMigrating: false, // one at a time, and none is chosen meanwhile
    })),
    waiting: waiting.map(({ requestId, wasTried }) => ({
      requestId,
      wasTried,
      isMigrating: false,
    })),
  };
}
