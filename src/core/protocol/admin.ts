/** Operators' calls, and the state that they are shown. */
import type { InstanceId, Priority, RequestId } from "./generate.ts";
import type { InstanceType } from "./instance_info.ts";

/**
 * Manager to instance or API server, call `requests`: what the instance has of these, or of all; which
 * of them wait in the API server for an instance.
 */
export interface RequestsQuery {
  readonly requestIds?: readonly RequestId[];
}

export interface RequestsReply {
  /** Those that came first. */
  readonly requests: readonly RequestStatus[];
  /** How many more there are. */
  readonly numOmitted: number;
}

/** Of an instance or an API server; the others are counted. */
export const MAX_LISTED_REQUESTS = 1_000;

/** A request as its instance sees it, for people; while it has none, as its API server does. */
export interface RequestStatus {
  readonly requestId: RequestId;
  readonly instanceId: InstanceId | null;
  readonly priority: Priority;
  /** `suspended`: on its way to another instance. */
  readonly state: "waiting" | "running" | "swapped" | "suspended" | "finished";
  readonly promptTokens: number;
  /** So far. */
  readonly outputTokens: number;
  /** Since it came to the service. */
  readonly ageMs: number;
}

/** A load; JSON has no infinities. */
export type LoadNumber = number | "inf" | "-inf";

/** An instance as the manager sees it, for people. */
export interface InstanceStatus {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  readonly state: InstanceState;
  /** Null until it is known; as all that follows. */
  readonly pid: number | null;
  readonly hostName: string | null;
  readonly totalBlocks: number | null;
  readonly usedBlocks: number | null;
  /** Dispatch load. */
  readonly load: LoadNumber | null;
  readonly runningRequests: number | null;
  readonly waitingRequests: number | null;
  /** Preempted, and not running again yet. */
  readonly killedRequests: number | null;
}

/** A host of the cluster as the manager sees it, for people. */
export interface HostStatus {
  readonly hostName: string;
  /** `draining`, `drained`: an operator drains the host; with `drained` no request is left there. */
  readonly state: "serving" | "draining" | "drained";
  readonly instances: number;
  /** Instances that take requests. */
  readonly availableInstances: number;
  readonly runningRequests: number;
  /** Preempted requests included. */
  readonly waitingRequests: number;
}

export interface HostName {
  readonly hostName: string;
}

export interface HostDrainOrder extends HostName {
  /** Most instances that drain at the same time; absent: all of them. */
  readonly atOnce?: number;
}

/**
 * `draining`: it takes no requests and gives its own away; `drained`: it has no requests any more;
 * `unreachable`: its connection to the manager ended, and may come back.
 */
export type InstanceState =
  | "starting"
  | "serving"
  | "draining"
  | "drained"
  | "stopping"
  | "unreachable";

/** What was begun, and goes on. */
export interface InstanceChange {
  readonly instanceId: InstanceId;
  readonly state: InstanceState;
}

export interface InstanceName {
  readonly instanceId: InstanceId;
}

export interface AdminRequests extends RequestsReply {
  /** Instances that did not answer. */
  readonly unreachable: readonly InstanceId[];
}

export interface AdminMigration {
  readonly requestId: RequestId;
  readonly destinationId: InstanceId;
}

/** API server to manager, answer to `operator_challenge`: the proof is computed from it. */
export interface OperatorChallenge {
  readonly challenge: string;
}

/**
 * API server to manager, call `operator_prove`: it has the admin token. From then on its connection may
 * carry the calls `admin_*`, which within the manager's process need no proof.
 */
export interface OperatorProof {
  /** See `operatorProof` in `core/operator_proof.ts`. */
  readonly proof: string;
}
