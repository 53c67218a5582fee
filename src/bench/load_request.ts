import type { Priority } from "../core/protocol/generate.ts";

/** A request of a dataset, before it has a time. */
export interface DatasetRequest {
  readonly prompt: string;
  /** Tokens that the prompt should have; the server's own count is reported. */
  readonly promptTokens: number;
  /** Limit of the answer in tokens. With `--ignore-eos` the answer has exactly this length. */
  readonly outputTokens: number;
  /** The time of the dataset; null if it has none. */
  readonly recordedMs: number | null;
  /** Null if the dataset does not say. */
  readonly priority: Priority | null;
}

/** A request of a load. */
export interface LoadRequest extends DatasetRequest {
  /** When it is sent, in milliseconds after the start of the load. */
  readonly arrivalMs: number;
  readonly priority: Priority;
}
