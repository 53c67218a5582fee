import type { GenerateRequest, RequestId } from "../../core/protocol/generate.ts";
import type { IncomingMigration } from "./incoming_migration.ts";
import type { BlockManager } from "./block_manager.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/** What departures and arrivals may use of an engine's core. All of it is synchronous. */
export interface MoveParts {
  readonly instanceId: string;
  /** Longest sequence in tokens. */
  readonly maxModelLen: number;
  /** Requests that may wait. */
  readonly maxWaitingRequests: number;
  readonly blocks: BlockManager;
  readonly scheduler: Scheduler;
  /** Those that have neither been adopted nor cancelled. */
  readonly incoming: Set<IncomingMigration>;
  has(requestId: RequestId): boolean;
  /**
   * Takes a request in; it is in no queue yet.
   * @throws {RequestError} it cannot be served here
   */
  accept(request: GenerateRequest): Sequence;
  /** Lets a sequence go that is in no queue, without an output. */
  forget(sequence: Sequence): void;
  /** Tells the API server who owns a request. */
  announce(sequence: Sequence): void;
  /** Calls `action` now, or when the step that runs has ended; also when the engine fails. */
  betweenSteps(action: () => void): void;
  /** The same, but now also while a step runs that copies nothing from free blocks. */
  betweenCopies(action: () => void): void;
  /** Why nothing is accepted any more; null while the engine works. */
  failure(): string | null;
  /** Queues or blocks have changed: the next step may be another, or possible now. */
  changed(): void;
}
