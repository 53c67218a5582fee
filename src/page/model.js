/** What the page knows, from the feed: one copy, which the views read. */

/** @import { FeedState, FeedTick, FeedRequest, FeedMove, FeedPoint, FeedEvent, FeedHost, FeedInstance, FeedLeadership, FeedSummary } from "../server/feed/records.ts" */

/** Points and events that are kept; the server sends no more at once. */
const MAX_POINTS = 160;
const MAX_EVENTS = 120;
const MAX_MOVES_OF_REQUEST = 4;

/**
 * A request that runs, as the views show it.
 * @typedef {{ -readonly [Name in keyof FeedRequest]: FeedRequest[Name] } & { moves: FeedMove[] }} Request
 */

export class Model {
  version = "";
  model = "";
  hasAdmin = false;
  isManagerGone = false;
  nowMs = 0;
  unlisted = 0;
  /** @type {readonly FeedInstance[]} */
  instances = [];
  /** @type {readonly FeedHost[]} */
  hosts = [];
  /** @type {FeedLeadership | null} */
  leadership = null;
  /** @type {Map<number, Request>} */
  requests = new Map();
  /** @type {FeedPoint[]} */
  points = [];
  /** @type {FeedEvent[]} */
  events = [];
  /** @type {FeedSummary | null} */
  summary = null;

  /** @param {FeedState} state */
  take(state) {
    this.version = state.version;
    this.model = state.model;
    this.hasAdmin = state.hasAdmin;
    const known = this.requests;
    this.requests = new Map(state.requests.map((request) => {
      const before = known.get(request.key);
      const moves = before?.id === request.id ? before.moves : [];
      return [request.key, { ...request, moves }];
    }));
    this.points = [...state.points];
    this.events = [...state.events];
    this.#takeNow(state);
  }

  /** @param {FeedTick} tick */
  apply(tick) {
    for (const request of tick.added) this.requests.set(request.key, { ...request, moves: [] });
    for (const [key, instance, isRunning, outputTokens] of tick.changed) {
      const request = this.requests.get(key);
      if (request === undefined) continue;
      request.instance = instance;
      request.isRunning = isRunning === 1;
      request.outputTokens = outputTokens;
    }
    for (const move of tick.moves) {
      const moves = this.requests.get(move.key)?.moves;
      moves?.push(move);
      if (moves !== undefined && moves.length > MAX_MOVES_OF_REQUEST) moves.shift();
    }
    for (const key of tick.ended) this.requests.delete(key);
    this.points = [...this.points, ...tick.points].slice(-MAX_POINTS);
    this.events = [...this.events, ...tick.events].slice(-MAX_EVENTS);
    this.#takeNow(tick);
  }

  /** @param {FeedState | FeedTick} now */
  #takeNow({ nowMs, instances, hosts, leadership, isManagerGone, unlisted, summary }) {
    this.nowMs = nowMs;
    this.instances = instances;
    this.hosts = hosts;
    this.leadership = leadership;
    this.isManagerGone = isManagerGone;
    this.unlisted = unlisted;
    this.summary = summary;
  }
}
