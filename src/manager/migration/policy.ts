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
  /** How long the request at the head of the queue has waited. */
  readonly firstWaitingMs: number;
  /** Waiting requests in the order of the queue: the head, and others that may move. */
  readonly waiting: readonly WaitingCandidate[];
  /** Tokens of each running request. */
  readonly runningSequenceLengths: readonly number[];
  /** Tokens in a block. */
  readonly blockSize: number;
  /** Instances with the same name are on one host; null: not known. */
  readonly hostName: string | null;
  /** Its host is being drained: it is no destination. */
  readonly isHostDrained: boolean;
  /** It is the source or the destination of a migration now. */
  readonly isMigrating: boolean;
  /** Its migration backend is initialised (some backends need a group first). */
  readonly isBackendReady: boolean;
}

/** A waiting request that may move to where it fits; without an id, the source chooses one. */
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
  /** What the migration is for; absent: the source chooses by its own policy. */
  readonly aim?: MigrationAim;
  /** The request that moves, with aim `waiting`. */
  readonly requestId?: RequestId;
}

/** What a policy may ask for: the threshold, and the loads and rooms of other states. */
export interface PairContext {
  /** An instance with more load than this is overloaded. */
  readonly thresholdLoad: number;
  loadOf(state: LoadState): number;
  /** Blocks that an instance can take without being overloaded. */
  roomOf(state: LoadState): number;
}

/** Which instances give requests away, and which pairs of a source and a destination are kept. */
export interface PairMigrationPolicy {
  isSource(candidate: LoadedCandidate, context: PairContext): boolean;
  keeps(source: LoadedCandidate, destination: LoadedCandidate, context: PairContext): boolean;
  /** Pairs that come before those by load. Absent: none. */
  pairBeforeLoad?(candidates: readonly LoadedCandidate[], context: PairContext): MigrationPair[];
}
