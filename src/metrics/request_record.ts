import type { ErrorKind } from "../core/errors.ts";
import type { FinishReason, Priority } from "../core/protocol/generate.ts";

/** A request of an API server after its end: what metrics, traces and the page are made of. */
export interface RequestRecord {
  readonly requestId: string;
  readonly priority: Priority;
  readonly origin: RequestOrigin;
  readonly sampling: RecordedSampling;
  /** This and the other times: milliseconds since the epoch, by the clock of the API server. */
  readonly arrivalMs: number;
  /** Null: it ended before its first token. */
  readonly firstTokenMs: number | null;
  readonly endMs: number;
  /** From its first step to its first token, by its instance; null if that is not known. */
  readonly prefillMs: number | null;
  /** 0: it was refused before its prompt was tokenised. */
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** `abort`: its client left, or another prompt of the same HTTP request failed. */
  readonly outcome: FinishReason;
  /** With outcome `error`. */
  readonly errorKind: ErrorKind | null;
}

/** What is known of the HTTP request that a request came with. */
export interface RequestOrigin {
  /** The context of the client's trace, from its `traceparent` header; null: it sent none. */
  readonly traceparent: string | null;
  /** OpenTelemetry's name for the kind of request (`gen_ai.operation.name`). */
  readonly operation: "chat" | "text_completion";
}

/** Sampling as the client asked for it. */
export interface RecordedSampling {
  readonly maxTokens?: number | null;
  readonly temperature?: number;
  readonly topP?: number;
}

/** Time to first token. */
export function ttftMs({ firstTokenMs, arrivalMs }: RequestRecord): number | null {
  return firstTokenMs === null ? null : firstTokenMs - arrivalMs;
}

/** Mean time per output token after the first; null for fewer than two tokens. */
export function tpotMs({ firstTokenMs, endMs, outputTokens }: RequestRecord): number | null {
  if (firstTokenMs === null || outputTokens < 2) return null;
  return (endMs - firstTokenMs) / (outputTokens - 1);
}

/**
 * Time until its first step began. The clocks of API server and instance may differ, so this is what the
 * prefill leaves of the time to first token: tokenisation, dispatch and the way there and back count too.
 */
export function queueMs(record: RequestRecord): number | null {
  const untilFirst = ttftMs(record);
  if (untilFirst === null || record.prefillMs === null) return null;
  return Math.max(0, untilFirst - record.prefillMs);
}

/** From its first token to its end. */
export function decodeMs({ firstTokenMs, endMs }: RequestRecord): number | null {
  return firstTokenMs === null ? null : endMs - firstTokenMs;
}
