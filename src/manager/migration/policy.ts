import type { InstanceId, RequestId } from "../../core/protocol/generate.ts";
import type { InstanceType, QueuedRequest } from "../../core/protocol/instance_info.ts";
import type { MigrationAim } from "../../core/protocol/migration.ts";
import type { LoadState } from "../load/load_state.ts";

/** An instance that may take part in migration. */
export interface MigrationCandidate {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  readonly state: LoadState;
  readonly killedRequests: number;
  readonly lastRunningBlocks: number;
  /** Of the request at the head of the queue. */
  readonly firstWaitingMs: number;
  /** Of the queue, in its order: the head, and others that may go. */
  readonly waiting: readonly WaitingCandidate[];
  /** Tokens of each running request. */
  readonly runningSequenceLengths: readonly number[];
  /** Tokens in a block. */
  readonly blockSize: number;
  /** Is the source or the destination of a migration now. */
  readonly isMigrating: boolean;
  /** Its migration backend is initialised (gloo and nccl need a group). */
  readonly isBackendReady: boolean;
}

/** A request that may go where it fits; without a name the source chooses. */
export type WaitingCandidate =
  & Pick<QueuedRequest, "blocks" | "arrivalMs">
  & Partial<Pick<QueuedRequest, "requestId">>;

/** A candidate and its migration load. */
export interface LoadedCandidate extends MigrationCandidate {
  readonly load: number;
}

/** Source and destination of one migration. */
export interface MigrationPair {
  readonly source: InstanceId;
  readonly destination: InstanceId;
  /** Absent where the source is to choose by itself. */
  readonly aim?: MigrationAim;
  /** With aim `waiting`. */
  readonly requestId?: RequestId;
}

/** What a policy may ask: the load that counts as too much, and loads and rooms of other states. */
export interface PairContext {
  readonly thresholdLoad: number;
  loadOf(state: LoadState): number;
  /** Blocks that an instance can take without being overloaded. */
  roomOf(state: LoadState): number;
}

/** Which instances give, and which pairs of a giver and a taker are kept. */
export interface PairMigrationPolicy {
  isSource(candidate: LoadedCandidate, context: PairContext): boolean;
  keeps(source: LoadedCandidate, destination: LoadedCandidate, context: PairContext): boolean;
  /** Pairs that come before all others. */
  pairBeforeLoad?(candidates: readonly LoadedCandidate[], context: PairContext): MigrationPair[];
}
