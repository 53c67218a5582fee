import type { GenerateRequest, RequestId } from "../../core/protocol/generate.ts";
import type { IncomingMigration } from "./incoming_migration.ts";
import type { BlockManager } from "./block_manager.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/** The part of an engine's core that migrations use. All of it is synchronous. */
export interface MoveParts {
  readonly instanceId: string;
  /** Longest sequence in tokens. */
  readonly maxModelLen: number;
  /** Most requests that wait. */
  readonly maxWaitingRequests: number;
  readonly blocks: BlockManager;
  readonly scheduler: Scheduler;
  /** Migrations to here that were neither adopted nor cancelled yet. */
  readonly incoming: Set<IncomingMigration>;
  has(requestId: RequestId): boolean;
  /**
   * Makes a request one of the engine's; the caller puts it into a queue.
   * @throws {RequestError} the engine cannot serve it
   */
  accept(request: GenerateRequest): Sequence;
  /** Removes a sequence that is in no queue, without an output to its API server. */
  forget(sequence: Sequence): void;
  /** Tells the API server of a sequence that this instance owns it. */
  announce(sequence: Sequence): void;
  /** Calls `action` now, or when the running step has ended, also if the engine fails. */
  betweenSteps(action: () => void): void;
  /** The same, but does not wait for a running step unless it still copies from free blocks. */
  betweenCopies(action: () => void): void;
  /** Why the engine accepts no more requests; null while it works. */
  failure(): string | null;
  /** Queues or blocks have changed: the engine decides anew what to run. */
  changed(): void;
}
