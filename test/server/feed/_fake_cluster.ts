/** A cluster that a test moves requests about in. */
import type { ClusterMonitor, OutputSink } from "../../../src/core/cluster.ts";
import { UnavailableError } from "../../../src/core/errors.ts";
import type { GenerateRequest, RequestOutput } from "../../../src/core/protocol/generate.ts";
import type {
  ClusterEvent,
  ClusterState,
  EventsQuery,
  EventsReply,
  InstanceLoad,
  MigrationEnded,
  NumberedEvent,
} from "../../../src/core/protocol/monitoring.ts";
import type { LocatingCluster } from "../../../src/server/feed/watched_requests.ts";
import { clusterState } from "../../metrics/cluster_state.ts";

export class FakeCluster implements LocatingCluster {
  readonly frontendId = "api-1";
  readonly places = new Map<string, string | null>();
  readonly sinks = new Map<string, OutputSink>();
  readonly events: NumberedEvent[] = [];
  isManagerGone = false;
  numStates = 0;
  instanceLoads: InstanceLoad[] = [];
  readonly monitor: ClusterMonitor = {
    state: () => this.#answer(() => this.#state()),
    events: (query) => this.#answer(() => this.#eventsAfter(query)),
  };

  instances() {
    return [];
  }

  isReady(): boolean {
    return true;
  }

  instanceOf(requestId: string): string | null {
    return this.places.get(requestId) ?? null;
  }

  submit({ requestId }: GenerateRequest, sink: OutputSink): Promise<void> {
    this.sinks.set(requestId, sink);
    return Promise.resolve();
  }

  take(requestId: string): Promise<never> {
    return Promise.reject(new UnavailableError(`${requestId} is not held`));
  }

  abort(requestId: string): void {
    this.sinks.delete(requestId);
  }

  /** The request gets so many tokens, and ends if `isLast`. */
  output(requestId: string, count: number, isLast = false): void {
    const output: RequestOutput = {
      requestId,
      index: 0,
      tokenIds: new Array(count).fill(1),
      ...(isLast && { finish: { reason: "length" } }),
    };
    this.sinks.get(requestId)!(output);
  }

  happens(event: ClusterEvent, atMs = 0): void {
    this.events.push({ ...event, sequence: this.events.length + 1, atMs });
  }

  async #answer<T>(answer: () => T): Promise<T> {
    await Promise.resolve();
    if (this.isManagerGone) throw new UnavailableError("the manager is gone");
    return answer();
  }

  #state(): ClusterState {
    this.numStates++;
    // The feed reads nothing else of it.
    const { hosts, leadership } = clusterState(this.instanceLoads);
    return { instances: this.instanceLoads, hosts, leadership } as unknown as ClusterState;
  }

  #eventsAfter({ after }: EventsQuery): EventsReply {
    const events = this.events.slice(after ?? this.events.length);
    return {
      managerStartedMs: 1,
      events,
      next: this.events.length,
      numDropped: 0,
      hasMore: false,
    };
  }
}

export function request(requestId: string, maxTokens = 100): GenerateRequest {
  // The feed reads nothing else of it.
  return {
    requestId,
    promptTokenIds: [1, 2, 3],
    params: { maxTokens },
  } as unknown as GenerateRequest;
}

export const moved: MigrationEnded = {
  type: "migration_ended",
  migrationId: "m",
  sourceId: "a",
  destinationId: "b",
  backend: "rayrpc",
  requestId: "r",
  outcome: "committed",
  phase: "commit",
  reason: "",
  lengthTokens: 20,
  stages: 2,
  blocks: 3,
  bytes: 4_000,
  transferMs: 1,
  downtimeMs: 2.5,
  totalMs: 9,
};
