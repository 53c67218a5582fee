import type { Clock } from "../../core/clock.ts";
import type { Cluster, OutputSink, SubmittedRequest } from "../../core/cluster.ts";
import type {
  HeldRequest,
  InstanceId,
  RequestId,
  RequestOutput,
} from "../../core/protocol/generate.ts";
import type { LatencyHistory } from "./latency_history.ts";

/** A request of this API server, as far as watchers see it. */
export interface WatchedRequest {
  /** Unique in this process. */
  readonly key: number;
  readonly requestId: RequestId;
  readonly isHigh: boolean;
  readonly promptTokens: number;
  readonly maxTokens: number;
  readonly startedMs: number;
  readonly instanceId: InstanceId | null;
  readonly outputTokens: number;
}

interface Entry extends WatchedRequest {
  instanceId: InstanceId | null;
  outputTokens: number;
  firstMs: number;
}

/** A cluster that can say which instance has a request. */
export type LocatingCluster = Cluster & {
  /** Null while no instance has the request. Of one that has just ended: the last that had it. */
  instanceOf(requestId: RequestId): InstanceId | null;
};

/** Ended requests that wait to be taken; of more, the oldest are dropped. */
const MAX_ENDED = 256;

/** A cluster whose requests can be watched: where they are, how far, and how fast their tokens come. */
export class WatchedRequests implements Cluster {
  readonly #running = new Map<RequestId, Entry>();
  #ended: WatchedRequest[] = [];
  #lastKey = 0;

  constructor(
    private readonly cluster: LocatingCluster,
    private readonly clock: Clock,
    private readonly history: LatencyHistory,
  ) {}

  get frontendId(): string {
    return this.cluster.frontendId;
  }

  /** Requests that have not ended, in the order in which they came. */
  get size(): number {
    return this.#running.size;
  }

  /** Where the requests are now; the oldest first. */
  *running(): Generator<WatchedRequest> {
    for (const entry of this.#running.values()) {
      entry.instanceId = this.cluster.instanceOf(entry.requestId);
      yield entry;
    }
  }

  get(requestId: RequestId): WatchedRequest | null {
    return this.#running.get(requestId) ?? null;
  }

  /** Requests that have ended since the last call. */
  takeEnded(): readonly WatchedRequest[] {
    const ended = this.#ended;
    this.#ended = [];
    return ended;
  }

  instances() {
    return this.cluster.instances();
  }

  isReady(): boolean {
    return this.cluster.isReady();
  }

  async submit(request: SubmittedRequest, sink: OutputSink): Promise<void> {
    const { requestId } = request;
    const entry: Entry = {
      key: ++this.#lastKey,
      requestId,
      isHigh: request.priority === "high",
      promptTokens: request.promptTokenIds.length,
      maxTokens: request.params.maxTokens,
      startedMs: this.clock.nowMs(),
      instanceId: null,
      outputTokens: 0,
      firstMs: 0,
    };
    const isKnown = this.#running.has(requestId); // it will be refused
    if (!isKnown) this.#running.set(requestId, entry);
    try {
      await this.cluster.submit(request, (output) => {
        this.#note(entry, output);
        sink(output);
      });
    } catch (error) {
      if (!isKnown) this.#running.delete(requestId);
      throw error;
    }
    entry.instanceId = this.cluster.instanceOf(requestId);
  }

  take(requestId: RequestId, leastTokens: number): Promise<HeldRequest> {
    return this.cluster.take(requestId, leastTokens);
  }

  abort(requestId: RequestId): void {
    const entry = this.#running.get(requestId);
    if (entry !== undefined) this.#end(entry);
    this.cluster.abort(requestId);
  }

  /** The path of every token. */
  #note(entry: Entry, { tokenIds, finish }: RequestOutput): void {
    const count = tokenIds.length;
    if (count > 0) {
      this.history.noteTokens(count);
      if (entry.firstMs === 0) this.#noteFirst(entry);
      entry.outputTokens += count;
    }
    if (finish === undefined) return;
    this.#end(entry);
    if (finish.reason === "error" || entry.outputTokens < 2) return;
    this.history.noteEnd((this.clock.nowMs() - entry.firstMs) / (entry.outputTokens - 1));
  }

  #noteFirst(entry: Entry): void {
    entry.firstMs = this.clock.nowMs();
    this.history.noteFirstToken(entry.firstMs - entry.startedMs, entry.promptTokens);
  }

  #end(entry: Entry): void {
    if (this.#running.get(entry.requestId) !== entry) return;
    entry.instanceId = this.cluster.instanceOf(entry.requestId) ?? entry.instanceId;
    this.#running.delete(entry.requestId);
    this.#ended.push(entry);
    if (this.#ended.length > MAX_ENDED) this.#ended.shift();
  }
}
