/**
 * What the page at `/` is sent, as server-sent events: one `state`, then a `tick` twice a second. A reader
 * that was slow for a while gets a `state` again. Times are milliseconds since the epoch unless named
 * otherwise.
 */
import type { HostStatus, InstanceState } from "../../core/protocol/admin.ts";
import type { InstanceType } from "../../core/protocol/instance_info.ts";

/** Everything that the page shows. */
export interface FeedState extends FeedNow {
  readonly version: string;
  /** Name of the model, for requests to `/v1/chat/completions`. */
  readonly model: string;
  /** There are admin routes: the page offers to change things. */
  readonly hasAdmin: boolean;
  readonly requests: readonly FeedRequest[];
  /** The newest last. */
  readonly events: readonly FeedEvent[];
  /** The newest last; one each {@linkcode POINT_MS}. */
  readonly points: readonly FeedPoint[];
}

/** What changed since the tick before. */
export interface FeedTick extends FeedNow {
  readonly added: readonly FeedRequest[];
  readonly changed: readonly FeedChange[];
  /** Keys of requests that ended. A request that was short is in `added` too. */
  readonly ended: readonly number[];
  readonly moves: readonly FeedMove[];
  readonly events: readonly FeedEvent[];
  readonly points: readonly FeedPoint[];
}

/** What every event carries whole. */
export interface FeedNow {
  readonly nowMs: number;
  readonly instances: readonly FeedInstance[];
  /** The manager did not answer: `instances` are those of its last answer. */
  readonly isManagerGone: boolean;
  readonly hosts: readonly FeedHost[];
  /** Null: there is one manager, or it has not answered yet. */
  readonly leadership: FeedLeadership | null;
  /** Requests that run but are not in the list, because it is full. */
  readonly unlisted: number;
  readonly summary: FeedSummary;
}

export interface FeedHost {
  readonly name: string;
  readonly state: HostStatus["state"];
  readonly instances: number;
  /** Instances that take requests. */
  readonly available: number;
}

/** Of a cluster with several managers. */
export interface FeedLeadership {
  /** The process that leads; empty: none is known. */
  readonly leader: string;
  readonly epoch: number;
  /** Why the lease store cannot be used now; null: it answers. */
  readonly storeProblem: string | null;
}

export interface FeedInstance {
  readonly id: string;
  readonly type: InstanceType;
  readonly state: InstanceState;
  /** Name of its host; null: not known. */
  readonly host: string | null;
  /** KV blocks; null until the instance has reported. */
  readonly totalBlocks: number | null;
  readonly usedBlocks: number | null;
  /** Dispatch load: the instance with the least gets the next request. */
  readonly load: number | "inf" | "-inf" | null;
  readonly running: number | null;
  readonly waiting: number | null;
  readonly preempted: number | null;
}

export interface FeedRequest {
  /** Names the request in later ticks. */
  readonly key: number;
  readonly id: string;
  /** Null: no instance has it yet, or any more. */
  readonly instance: string | null;
  readonly isRunning: boolean;
  readonly isHigh: boolean;
  readonly promptTokens: number;
  /** So far. */
  readonly outputTokens: number;
  readonly maxTokens: number;
  readonly startedMs: number;
}

/** A request has now another instance, has begun to run, or has got further. */
export type FeedChange = readonly [
  key: number,
  instance: string | null,
  isRunning: 0 | 1,
  outputTokens: number,
];

/** A request moved, and goes on. */
export interface FeedMove {
  readonly key: number;
  readonly from: string;
  readonly to: string;
  /** It was suspended for so long. */
  readonly downtimeMs: number;
  readonly totalMs: number;
  readonly bytes: number;
  /** Of the request when it left. */
  readonly tokens: number;
}

export type FeedEventKind = "good" | "bad" | "warning" | "note" | "move";

export interface FeedEvent {
  /** Grows by one with each event of this server. */
  readonly seq: number;
  readonly atMs: number;
  readonly kind: FeedEventKind;
  /** A sentence. */
  readonly text: string;
}

/** The time between two points of the plots. */
export const POINT_MS = 2_000;

/** Latencies of requests of the last ten seconds, and sums of the time since the point before. */
export interface FeedPoint {
  readonly atMs: number;
  /** Median and 99th percentile; null: no request. */
  readonly ttftMs: Percentiles | null;
  readonly tpotMs: Percentiles | null;
  readonly outputTokensPerSecond: number;
  readonly promptTokensPerSecond: number;
  readonly migrations: number;
  readonly preemptions: number;
}

export type Percentiles = readonly [p50: number, p99: number];

/** Of the last minute; sums of the time that the plots show. */
export interface FeedSummary {
  readonly ttftMs: Percentiles | null;
  readonly tpotMs: Percentiles | null;
  readonly outputTokensPerSecond: number;
  readonly migrations: number;
  readonly worstDowntimeMs: number | null;
  readonly preemptions: number;
  /** Requests that went on elsewhere after their instance was lost. */
  readonly resumed: number;
}
