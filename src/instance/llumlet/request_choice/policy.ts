import type { Priority, RequestId } from "../../../core/protocol/generate.ts";
import type { MigrateOutOrder } from "../../../core/protocol/migration.ts";

/** A running request that may leave. */
export interface RunningRequest {
  readonly requestId: RequestId;
  readonly priority: Priority;
  readonly arrivalMs: number;
  /** Prompt and output. */
  readonly lengthTokens: number;
  /** That it has. */
  readonly blocks: number;
  /** Its prompt is computed: only then it counts as running here. */
  readonly isDecoding: boolean;
  /** Has run as many steps as it may here (prefill instances), and must go on elsewhere. */
  readonly hasReachedExpectedSteps: boolean;
  readonly isMigrating: boolean;
}

/** A waiting request that may leave. */
export interface WaitingRequest {
  readonly requestId: RequestId;
  /** The scheduler has tried to run it at least once, so that it waits for blocks. */
  readonly wasTried: boolean;
  readonly arrivalMs: number;
  /** That it needs. */
  readonly blocks: number;
  readonly isMigrating: boolean;
}

/** The queues of an instance, each in its order. */
export interface RequestQueues {
  readonly running: readonly RunningRequest[];
  readonly waiting: readonly WaitingRequest[];
  /** Blocks that are free for the request at the head of the queue. */
  readonly availableBlocks: number;
}

/** What an order says of its destination and its aim. */
export type ChoiceTerms = Pick<MigrateOutOrder, "room" | "aim" | "requestId">;

/** Requests to migrate, one after the other until one cannot. */
export type RequestChoice = (queues: RequestQueues, terms?: ChoiceTerms) => RequestId[];
