import type { Clock } from "../../core/clock.ts";
import { sleep } from "../../core/clock.ts";
import type { ClusterMonitor } from "../../core/cluster.ts";
import { ClusterWatch } from "./cluster_watch.ts";
import { LatencyHistory } from "./latency_history.ts";
import {
  type FeedMove,
  type FeedNow,
  type FeedPoint,
  type FeedState,
  type FeedTick,
  POINT_MS,
} from "./records.ts";
import { RequestList } from "./request_list.ts";
import { type LocatingCluster, WatchedRequests } from "./watched_requests.ts";

/** Readers are sent something so often. */
const TICK_MS = 500;
/** A reader that comes waits less for its first event. */
const FIRST_TICK_MS = 50;
/** A tick does not wait longer for the manager: it sends what is known. */
const PULL_WAIT_MS = 250;
/** Pages that are open at the same time. */
export const MAX_READERS = 64;
/** Ticks without reading after which a reader is disconnected: half a minute. */
const MAX_SKIPPED = 60;

/** Where the feed goes: an open page. */
export interface FeedReader {
  /** It has not read what it was sent before: it is sent nothing, and later a whole state. */
  readonly congested: boolean;
  push(text: string): void;
  end(): void;
}

/** What does not change. */
export interface FeedNames {
  readonly version: string;
  readonly model: string;
  readonly hasAdmin: boolean;
}

interface Reader {
  readonly reader: FeedReader;
  readonly address: string;
  needsState: boolean;
  skipped: number;
}

/**
 * What the page at `/` shows, computed once for all readers. Without a reader it only counts, once in two
 * seconds, so that a page that is opened shows the last minutes.
 */
export class ClusterFeed {
  /** Give requests to this instead of the cluster: so the feed sees them. */
  readonly requests: WatchedRequests;
  readonly #history = new LatencyHistory();
  readonly #watch: ClusterWatch;
  readonly #list: RequestList;
  readonly #readers = new Set<Reader>();
  #pulling: Promise<void> | null = null;
  #isTicking = false;
  #cancelTick: (() => void) | null = null;
  #closedMs: number;
  #toldPointMs = 0;
  #toldEvent = 0;
  #isClosed = false;

  constructor(
    cluster: LocatingCluster & { readonly monitor: ClusterMonitor },
    private readonly clock: Clock,
    private readonly names: FeedNames,
  ) {
    this.requests = new WatchedRequests(cluster, clock, this.#history);
    this.#watch = new ClusterWatch(cluster.monitor, clock, this.#history);
    this.#list = new RequestList(this.requests);
    this.#closedMs = clock.nowMs();
  }

  /** Begins to count. */
  start(): void {
    this.#closedMs = this.clock.nowMs();
    this.#tickAfter(POINT_MS);
  }

  /**
   * Whether a reader of this address finds a place: a free one, or one of an address that has several more, so
   * that no client keeps all others out.
   */
  hasPlaceFor(address: string): boolean {
    return this.#readers.size < MAX_READERS || this.#greediest(address) !== null;
  }

  /**
   * Sends the feed to a reader, for which there is a place.
   * @param address of the reader's client
   * @returns call it when the reader has left
   */
  open(reader: FeedReader, address: string): () => void {
    if (this.#isClosed) {
      reader.end();
      return () => {};
    }
    if (this.#readers.size >= MAX_READERS) {
      const greediest = this.#greediest(address);
      if (greediest !== null) this.#end(greediest);
    }
    const entry = { reader, address, needsState: true, skipped: 0 };
    this.#readers.add(entry);
    if (!this.#isTicking) this.#tickAfter(FIRST_TICK_MS);
    return () => this.#readers.delete(entry);
  }

  /** Ends all streams. A stream that is opened later ends at once. Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#cancelTick?.();
    for (const { reader } of this.#readers) reader.end();
    this.#readers.clear();
  }

  /** The oldest reader of the address with the most readers; null if this one has hardly fewer. */
  #greediest(address: string): Reader | null {
    const counts = new Map<string, number>();
    for (const { address } of this.#readers) counts.set(address, (counts.get(address) ?? 0) + 1);
    const most = Math.max(...counts.values());
    if (most <= (counts.get(address) ?? 0) + 1) return null;
    return [...this.#readers].find((reader) => counts.get(reader.address) === most) ?? null;
  }

  #end(entry: Reader): void {
    this.#readers.delete(entry);
    entry.reader.end();
  }

  #tickAfter(delayMs: number): void {
    this.#cancelTick?.();
    if (this.#isClosed) return;
    this.#cancelTick = this.clock.after(delayMs, () => this.#tick());
  }

  async #tick(): Promise<void> {
    this.#isTicking = true;
    const isRead = this.#readers.size > 0;
    this.#pulling ??= this.#watch.pull(isRead).finally(() => this.#pulling = null);
    await Promise.race([this.#pulling, sleep(this.clock, PULL_WAIT_MS)]);
    this.#isTicking = false;
    if (this.#isClosed) return;
    this.#closeSlice();
    if (this.#readers.size > 0) this.#send();
    else this.#forget();
    this.#tickAfter(this.#readers.size > 0 ? TICK_MS : POINT_MS);
  }

  /** Nobody reads: the next reader gets a whole state. */
  #forget(): void {
    this.#list.clear();
    this.#watch.takeMoves();
  }

  #closeSlice(): void {
    const nowMs = this.clock.nowMs();
    if (nowMs - this.#closedMs < POINT_MS - TICK_MS / 2) return;
    this.#closedMs = nowMs;
    this.#history.close(nowMs);
  }

  #send(): void {
    const changes = this.#list.update();
    const now = this.#now();
    const tick: FeedTick = {
      ...now,
      ...changes,
      moves: this.#moves(),
      events: this.#watch.events.filter(({ seq }) => seq > this.#toldEvent),
      points: this.#newPoints(),
    };
    this.#toldEvent = this.#watch.events.at(-1)?.seq ?? this.#toldEvent;
    const tickText = eventText("tick", tick);
    let stateText: string | null = null;
    for (const entry of [...this.#readers]) {
      const { reader } = entry;
      if (reader.congested) {
        entry.needsState = true;
        entry.skipped++;
        if (entry.skipped >= MAX_SKIPPED) this.#end(entry);
        continue;
      }
      entry.skipped = 0;
      if (entry.needsState) reader.push(stateText ??= eventText("state", this.#state(now)));
      else reader.push(tickText);
      entry.needsState = false;
    }
  }

  #now(): FeedNow {
    return {
      nowMs: Math.round(this.clock.nowMs()),
      instances: this.#watch.instances,
      hosts: this.#watch.hosts,
      leadership: this.#watch.leadership,
      isManagerGone: this.#watch.isManagerGone,
      unlisted: this.#list.unlisted,
      summary: this.#history.summary(),
    };
  }

  #state(now: FeedNow): FeedState {
    return {
      ...now,
      ...this.names,
      requests: this.#list.requests,
      events: this.#watch.events,
      points: this.#history.points,
    };
  }

  #moves(): FeedMove[] {
    return this.#watch.takeMoves().flatMap((move) => {
      const request = move.requestId === null ? null : this.requests.get(move.requestId);
      if (request === null) return []; // it has ended, or is another API server's
      return {
        key: request.key,
        from: move.sourceId,
        to: move.destinationId,
        downtimeMs: move.downtimeMs,
        totalMs: move.totalMs,
        bytes: move.bytes,
        tokens: move.lengthTokens,
      };
    });
  }

  #newPoints(): readonly FeedPoint[] {
    const points = this.#history.points.filter(({ atMs }) => atMs > this.#toldPointMs);
    this.#toldPointMs = points.at(-1)?.atMs ?? this.#toldPointMs;
    return points;
  }
}

function eventText(name: string, record: FeedState | FeedTick): string {
  return `event: ${name}\ndata: ${JSON.stringify(record)}\n\n`;
}
