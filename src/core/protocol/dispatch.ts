/** API server to manager: which instance takes a request. */
import type { ManagerDecision } from "./leadership.ts";
import type { InstanceId, Priority, RequestId } from "./generate.ts";

/** API server to manager, call `dispatch`: what a policy may know of a request. */
export interface DispatchRequest {
  readonly requestId: RequestId;
  readonly promptTokens: number;
  /** Default normal. */
  readonly priority?: Priority;
  /**
   * The API server that isolates the request, because it may be a poison request: one that crashes every
   * instance it runs on. Absent: the request is not suspected.
   */
  readonly isolatedBy?: string;
}

/**
 * API server to manager, notification `isolating`: it still isolates a request, or has others to
 * isolate, and keeps the isolation lease.
 */
export interface IsolationNotice {
  readonly frontendId: string;
}

export interface DispatchReply extends ManagerDecision {
  readonly instanceId: InstanceId;
  /** Engine steps after which the request moves to another instance; by default it stays. */
  readonly expectedSteps?: number;
}

/** How long an isolation lease lasts: a poison request crashes its instance within this time. */
export const ISOLATION_LEASE_MS = 1_000;
