import type { Clock } from "../../core/clock.ts";
import type {
  LeaseStore,
  Revision,
  Scope,
  StoreChange,
  StoreEntry,
  StoreList,
} from "./lease_store.ts";

export interface StoreViewConfig {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly scope: Scope;
  /** Pause between two reads beside the watch: a fifth of a lease. */
  readonly readIntervalMs: number;
  /** An entry is new, has changed or, with null, is gone. */
  readonly onChange: (key: string, entry: StoreEntry | null) => void;
  /**
   * The store has answered a read, which was sent at `sentMs` of the clock: `entries` show everything that
   * was acknowledged before that. Comes after the changes that it revealed.
   */
  readonly onAnswer?: (sentMs: number) => void;
  /** A read has failed. */
  readonly onAway?: (error: Error) => void;
}

/**
 * What a store holds in one scope, kept up to date by a watch, and by reads beside it. The watch is fast;
 * the reads are right: they notice a server that fell silent, a watch that skipped a change, and a store
 * that was restored from an older copy or emptied, whose revisions start again.
 */
export class StoreView {
  readonly #config: StoreViewConfig;
  readonly #entries = new Map<string, StoreEntry>();
  #stopWatch: (() => void) | null = null;
  /** Largest revision of a change that came since the read under way was sent. */
  #newestSinceSent: Revision = 0;
  /** Of the latest read that counted. */
  #revision: Revision = 0;
  #isReading = false;
  /** A read is wanted as soon as the one under way has ended. */
  #isStale = false;
  #cancelRead: () => void = () => {};
  #isClosed = false;

  /** Starts at once. */
  constructor(config: StoreViewConfig) {
    this.#config = config;
    this.refresh();
  }

  /** By key. */
  get entries(): ReadonlyMap<string, StoreEntry> {
    return this.#entries;
  }

  /** Reads now, or again if a read is under way, which may have been too early. */
  refresh(): void {
    if (this.#isClosed) return;
    if (this.#isReading) this.#isStale = true;
    else this.#read();
  }

  /** Reads now, unless a read is under way. */
  refreshIfIdle(): void {
    if (!this.#isClosed && !this.#isReading) this.#read();
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#cancelRead();
    this.#endWatch();
  }

  async #read(): Promise<void> {
    const { store, clock, scope, readIntervalMs, onAnswer, onAway } = this.#config;
    this.#isReading = true;
    this.#isStale = false;
    this.#cancelRead();
    const sentMs = clock.nowMs();
    this.#newestSinceSent = 0;
    let failure: Error | null = null;
    try {
      const list = await store.list(scope);
      if (!this.#isClosed) this.#take(list);
    } catch (error) {
      failure = error as Error;
      this.#endWatch(); // it may hang on a server that is gone
    }
    this.#isReading = false;
    if (this.#isClosed) return;
    if (failure === null) onAnswer?.(sentMs);
    else onAway?.(failure);
    if (this.#isClosed) return;
    if (this.#isStale) return void this.#read();
    // From the sending on: a slow answer does not make reads rarer.
    const pauseMs = Math.max(readIntervalMs / 5, sentMs + readIntervalMs - clock.nowMs());
    this.#cancelRead = clock.after(pauseMs, () => this.refresh());
  }

  #take({ entries, revision }: StoreList): void {
    // A change that came meanwhile is newer than this answer.
    if (revision < this.#newestSinceSent) return;
    const hasGoneBack = revision < this.#revision;
    this.#revision = revision;
    const present = new Set(entries.map(({ key }) => key));
    for (const entry of entries) {
      const there = this.#entries.get(entry.key);
      if (there?.revision !== entry.revision || there.value !== entry.value) this.#put(entry);
    }
    for (const key of [...this.#entries.keys()]) if (!present.has(key)) this.#remove(key);
    if (hasGoneBack) this.#endWatch();
    if (!this.#isClosed && this.#stopWatch === null) this.#watch(revision);
  }

  #watch(after: Revision): void {
    const { store, scope } = this.#config;
    let stop: (() => void) | null = null;
    let hasEnded = false;
    stop = store.watch(scope, after, {
      onChange: (change) => this.#takeChange(change),
      onEnd: () => {
        hasEnded = true;
        if (this.#stopWatch === stop) this.#stopWatch = null; // the next read begins another
      },
    });
    if (!hasEnded) this.#stopWatch = stop;
  }

  #takeChange(change: StoreChange): void {
    const { key, value, revision } = change;
    this.#newestSinceSent = Math.max(this.#newestSinceSent, revision);
    const there = this.#entries.get(key);
    if (revision <= (there?.revision ?? this.#revision)) return; // a read has shown it
    if (value !== null) this.#put({ key, value, revision });
    else this.#remove(key);
  }

  #put(entry: StoreEntry): void {
    this.#entries.set(entry.key, entry);
    this.#config.onChange(entry.key, entry);
  }

  #remove(key: string): void {
    if (this.#entries.delete(key)) this.#config.onChange(key, null);
  }

  #endWatch(): void {
    this.#stopWatch?.();
    this.#stopWatch = null;
  }
}
