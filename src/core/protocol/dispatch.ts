/** API server to manager: which instance takes a request. */
import type { InstanceId, Priority, RequestId } from "./generate.ts";

/** API server to manager, call `dispatch`: what a policy may know of a request. */
export interface DispatchRequest {
  readonly requestId: RequestId;
  readonly promptTokens: number;
  /** Default normal. */
  readonly priority?: Priority;
  /** The API server that would try whether instances die of the request; absent: nobody thinks so. */
  readonly triedBy?: string;
}

/** An API server has requests of which it is not known yet whether instances die of them. */
export interface SuspicionNote {
  readonly frontendId: string;
}

export interface DispatchReply {
  readonly instanceId: InstanceId;
  /** Engine steps after which the request is to go on at another instance; default none. */
  readonly expectedSteps?: number;
}

/** A request that kills instances does so within this time. */
export const LEASE_MS = 1_000;
