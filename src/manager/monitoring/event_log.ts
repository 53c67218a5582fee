import {
  type ClusterEvent,
  type EventsQuery,
  type EventsReply,
  MAX_EVENTS_PER_REPLY,
  MAX_KEPT_EVENTS,
  type NumberedEvent,
} from "../../core/protocol/monitoring.ts";

/**
 * The last events of a manager, in a ring. Readers ask for what came after the last event they know: a
 * slow reader costs nothing, and learns how many events it missed.
 */
export class EventLog {
  readonly #startedMs: number;
  readonly #ring: NumberedEvent[] = [];
  /** Number of the last event; 0 before the first. */
  #last = 0;

  /** @param startedMs tells this manager from others */
  constructor(startedMs: number) {
    this.#startedMs = startedMs;
  }

  add(event: ClusterEvent, atMs: number): void {
    const sequence = ++this.#last;
    this.#ring[(sequence - 1) % MAX_KEPT_EVENTS] = { sequence, atMs, ...event };
  }

  /** See {@linkcode EventsQuery}. */
  read({ after, managerStartedMs = this.#startedMs }: EventsQuery): EventsReply {
    const isSameManager = managerStartedMs === this.#startedMs;
    const known = after === null ? this.#last : isSameManager ? Math.min(after, this.#last) : 0;
    const first = Math.max(known, this.#last - MAX_KEPT_EVENTS) + 1;
    const next = Math.min(this.#last, first + MAX_EVENTS_PER_REPLY - 1);
    const events: NumberedEvent[] = [];
    for (let sequence = first; sequence <= next; sequence++) {
      events.push(this.#ring[(sequence - 1) % MAX_KEPT_EVENTS]);
    }
    return {
      managerStartedMs: this.#startedMs,
      events,
      next,
      numDropped: first - 1 - known,
      hasMore: next < this.#last,
    };
  }
}
