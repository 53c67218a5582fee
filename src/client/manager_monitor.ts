import type { Clock } from "../core/clock.ts";
import type { ClusterMonitor } from "../core/cluster.ts";
import type { ClusterState, EventsQuery, EventsReply } from "../core/protocol/monitoring.ts";
import type { ManagerLink } from "./manager_link.ts";

/** A manager answers at once. */
const TIMEOUT_MS = 2_000;
/** Watchers that ask within this time share one answer. */
const STATE_LIFE_MS = 200;

/** What the manager tells an API server of the cluster, however many watchers the API server has. */
export class ManagerMonitor implements ClusterMonitor {
  readonly #manager: () => ManagerLink;
  readonly #clock: Clock;
  #state: Promise<ClusterState> | null = null;
  #askedMs = -Infinity;

  constructor(manager: () => ManagerLink, clock: Clock) {
    this.#manager = manager;
    this.#clock = clock;
  }

  events(query: EventsQuery): Promise<EventsReply> {
    return this.#manager().call("cluster_events", query, TIMEOUT_MS);
  }

  state(): Promise<ClusterState> {
    const nowMs = this.#clock.nowMs();
    if (this.#state === null || nowMs - this.#askedMs > STATE_LIFE_MS) {
      this.#askedMs = nowMs;
      this.#state = this.#manager().call("cluster_state", null, TIMEOUT_MS);
      this.#state.catch(() => {}); // each watcher handles it
    }
    return this.#state;
  }
}
