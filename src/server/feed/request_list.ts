import type { FeedChange, FeedRequest } from "./records.ts";
import type { WatchedRequest, WatchedRequests } from "./watched_requests.ts";

/** Requests that have a mark on the page; further ones are counted. */
export const MAX_LISTED = 400;
/** Readers learn of a request's progress in this many steps. */
const PROGRESS_STEPS = 20;

export interface ListChanges {
  readonly added: readonly FeedRequest[];
  readonly changed: readonly FeedChange[];
  readonly ended: readonly number[];
}

interface Listed {
  request: FeedRequest;
  step: number;
}

/** The requests that readers know of. */
export class RequestList {
  readonly #listed = new Map<number, Listed>();
  #unlisted = 0;

  constructor(private readonly watched: WatchedRequests) {}

  /** What readers know now. */
  get requests(): FeedRequest[] {
    return [...this.#listed.values()].map(({ request }) => request);
  }

  get unlisted(): number {
    return this.#unlisted;
  }

  /** Compares with the requests that run now. Readers who get the changes know the new list. */
  update(): ListChanges {
    const added: FeedRequest[] = [], changed: FeedChange[] = [], ended: number[] = [];
    for (const request of this.watched.takeEnded()) {
      // A short one may have begun and ended since the last time: the page shows where it ran.
      if (!this.#listed.delete(request.key)) {
        if (added.length >= MAX_LISTED) continue;
        added.push(recordOf(request));
      }
      ended.push(request.key);
    }
    for (const request of this.watched.running()) {
      const listed = this.#listed.get(request.key);
      if (listed === undefined) {
        if (this.#listed.size >= MAX_LISTED) continue;
        const record = recordOf(request);
        this.#listed.set(request.key, { request: record, step: stepOf(request) });
        added.push(record);
      } else if (hasChanged(listed, request)) {
        listed.request = recordOf(request);
        listed.step = stepOf(request);
        const { key, instance, isRunning, outputTokens } = listed.request;
        changed.push([key, instance, isRunning ? 1 : 0, outputTokens]);
      }
    }
    this.#unlisted = this.watched.size - this.#listed.size;
    return { added, changed, ended };
  }

  /** Nobody reads any more. */
  clear(): void {
    this.#listed.clear();
    this.watched.takeEnded();
  }
}

function recordOf(request: WatchedRequest): FeedRequest {
  return {
    key: request.key,
    id: request.requestId,
    instance: request.instanceId,
    isRunning: request.outputTokens > 0,
    isHigh: request.isHigh,
    promptTokens: request.promptTokens,
    outputTokens: request.outputTokens,
    maxTokens: request.maxTokens,
    startedMs: Math.round(request.startedMs),
  };
}

function hasChanged({ request: known, step }: Listed, request: WatchedRequest): boolean {
  return known.instance !== request.instanceId || stepOf(request) !== step;
}

/** 0 before the first token. */
function stepOf({ outputTokens, maxTokens }: WatchedRequest): number {
  return Math.ceil((outputTokens / Math.max(1, maxTokens)) * PROGRESS_STEPS);
}
