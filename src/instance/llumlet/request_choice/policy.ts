import type { Priority, RequestId } from "../../../core/protocol/generate.ts";
import type { MigrateOutOrder } from "../../../core/protocol/migration.ts";

/** A running request that may move. */
export interface RunningRequest {
  readonly requestId: RequestId;
  readonly priority: Priority;
  readonly arrivalMs: number;
  /** Tokens of prompt and output. */
  readonly lengthTokens: number;
  /** Length of its block table. */
  readonly blocks: number;
  /** Its prompt is computed. Policies see only such requests. */
  readonly isDecoding: boolean;
  /** It has run as many steps as it may on this (prefill) instance, and has to move. */
  readonly hasReachedExpectedSteps: boolean;
  readonly isMigrating: boolean;
}

/** A waiting request that may move. */
export interface WaitingRequest {
  readonly requestId: RequestId;
  /** The scheduler has tried to admit it, so that it waits for blocks or a place. */
  readonly wasTried: boolean;
  readonly arrivalMs: number;
  /** Blocks that it needs. */
  readonly blocks: number;
  readonly isMigrating: boolean;
}

/** The queues of an instance, each in the order of turns. */
export interface RequestQueues {
  readonly running: readonly RunningRequest[];
  readonly waiting: readonly WaitingRequest[];
  /** Free blocks less the watermark: what the head of the queue can get. */
  readonly availableBlocks: number;
}

/** What an order says about its destination and its aim. */
export type ChoiceTerms = Pick<MigrateOutOrder, "room" | "aim" | "requestId">;

/** A request migration policy. The requests move one after the other, until one cannot. */
export type RequestChoice = (queues: RequestQueues, terms?: ChoiceTerms) => RequestId[];
