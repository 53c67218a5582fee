import type { Priority } from "../core/protocol/generate.ts";

/** A request of a workload, before it has tokens. */
export interface WorkloadRequest {
  /** Milliseconds after the start of the workload; not less than that of the previous request. */
  readonly arrivalMs: number;
  readonly promptTokens: number;
  /** Tokens that the request generates, 1 or more. */
  readonly outputTokens: number;
  readonly priority: Priority;
}
