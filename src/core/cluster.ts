import type {
  GenerateRequest,
  HeldRequest,
  RequestId,
  RequestOutput,
} from "./protocol/generate.ts";
import type { InstanceRegistration } from "./protocol/membership.ts";
import type { ClusterState, EventsQuery, EventsReply } from "./protocol/monitoring.ts";
import type { TokenIds } from "./token_ids.ts";

/** A request as its API server keeps it. */
export interface SubmittedRequest extends Omit<GenerateRequest, "promptTokenIds"> {
  readonly promptTokenIds: TokenIds;
}

/** Receives a request's output in order; the output with `finish` is the last. */
export type OutputSink = (output: RequestOutput) => void;

/**
 * The cluster as an API server sees it: requests go in, indexed tokens come out. Implemented by the
 * manager's client over the bus, and by fakes in tests.
 */
export interface Cluster {
  /** Name of this API server in {@linkcode SubmittedRequest}s. */
  readonly frontendId: string;
  /** Instances that serve now. */
  instances(): readonly InstanceRegistration[];
  /** True when every instance that was asked for is serving, and not all of them drain. */
  isReady(): boolean;
  /**
   * Dispatches a request. Resolves once an instance has queued it, or it was aborted; outputs then
   * arrive at `sink`, and exactly one of them has `finish`. The first output comes in a later turn of
   * the event loop than the one in which this resolved, so that the caller has continued by then.
   * @throws {RequestError} the request can never be served
   * @throws {OverloadedError} queues are full
   * @throws {UnavailableError} no instance can take it
   */
  submit(request: SubmittedRequest, sink: OutputSink): Promise<void>;
  /**
   * Takes a request that an instance holds (`holdMs`), whichever API server had it: if it still runs, it
   * is stopped. To resume it, submit it with the tokens, seed, arrival time and epoch that are returned.
   * @param leastTokens what the client has: an instance that holds less has an old copy, which does not count
   * @throws {LlumnixError} `not_found`: no instance holds it, or not any more
   * @throws {UnavailableError} an instance that may hold it does not answer
   */
  take(requestId: RequestId, leastTokens: number): Promise<HeldRequest>;
  /**
   * Stops a request, also one whose `submit` has not resolved yet; unknown ids are ignored. Its sink is
   * never called again.
   */
  abort(requestId: RequestId): void;
}

/** The cluster as watchers see it: the page and `/metrics`. */
export interface ClusterMonitor {
  /**
   * What happened after an event. Ask as often as the answer is shown; between two queries the manager
   * keeps the last events (`MAX_KEPT_EVENTS`).
   * @throws {UnavailableError} there is no manager now
   */
  events(query: EventsQuery): Promise<EventsReply>;
  /**
   * All instances with their loads, and the manager's counters. Up to 200 ms old, so that many
   * watchers cost no more than one.
   * @throws {UnavailableError} there is no manager now
   */
  state(): Promise<ClusterState>;
}
