import * as z from "zod";
import type { Clock } from "../../core/clock.ts";
import { type LeaseStore, namesOfKey, type StoreEntry, storeKey } from "../store/lease_store.ts";
import { StoreView } from "../store/store_view.ts";

const SCOPE = "candidates/";
/** A report this many leases old says nothing. */
const FRESH_LEASES = 3;
/** The leader removes reports of candidates that have been silent for so long. */
const FORGOTTEN_LEASES = 60;

const reportSchema = z.object({ heard: z.int().min(0), beat: z.int().min(0) });
type Report = z.infer<typeof reportSchema>;

/** What is known of another candidate. */
interface Other {
  readonly report: Report;
  readonly revision: number;
  /** When the report last changed. */
  readonly changedMs: number;
  /** Since when it has heard more instances than this candidate; null: it does not. */
  readonly moreSinceMs: number | null;
}

export interface HearingConfig {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly id: string;
  readonly leaseMs: number;
  /** How many instances this candidate hears now. */
  readonly heard: () => number;
}

/**
 * How many instances each candidate hears, so that a leader which the network has cut off from instances
 * can give way to a candidate that is not. Each candidate writes its count to the store once in a lease.
 */
export class Hearing {
  readonly #config: HearingConfig;
  readonly #view: StoreView;
  readonly #key: string;
  readonly #others = new Map<string, Other>();
  #beat = 0;
  #isWriting = false;
  #isClosed = false;

  constructor(config: HearingConfig) {
    this.#config = config;
    this.#key = storeKey("candidates", config.id);
    const { store, clock, leaseMs } = config;
    this.#view = new StoreView({
      store,
      clock,
      scope: SCOPE,
      readIntervalMs: leaseMs,
      onChange: (key, entry) => this.#take(key, entry),
      onAnswer: () => this.#report(),
    });
  }

  /**
   * The candidate that has heard more instances than this one for a whole lease; of several the one that
   * hears the most. Null: there is none. To be called several times in a lease.
   */
  findBetter(): string | null {
    const { clock, leaseMs } = this.#config;
    const nowMs = clock.nowMs();
    let best: { readonly id: string; readonly heard: number } | null = null;
    const own = this.#config.heard();
    for (const [id, other] of this.#others) {
      const { report: { heard }, changedMs, moreSinceMs } = other;
      if (heard <= own) {
        // It has to report again: it may be dead, and hears less than its last report says.
        this.#others.set(id, { ...other, moreSinceMs: null });
        continue;
      }
      const isFresh = nowMs - changedMs <= FRESH_LEASES * leaseMs;
      if (!isFresh || moreSinceMs === null || nowMs - moreSinceMs < leaseMs) continue;
      if (best === null || heard > best.heard) best = { id, heard };
    }
    return best?.id ?? null;
  }

  /** Removes what candidates have left that are gone. For the leader, now and then. */
  clean(): void {
    const { store, clock, leaseMs } = this.#config;
    const nowMs = clock.nowMs();
    for (const [id, other] of this.#others) {
      if (nowMs - other.changedMs < FORGOTTEN_LEASES * leaseMs) continue;
      this.#others.set(id, { ...other, changedMs: nowMs, moreSinceMs: null });
      store.set(storeKey("candidates", id), null, other.revision).catch(() => {}); // later, then
    }
  }

  /** Removes the own report, if the store lets it. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const own = this.#view.entries.get(this.#key);
    this.#view.close();
    if (own) await this.#config.store.set(this.#key, null, own.revision).catch(() => {});
  }

  /** Instances come and go at each candidate at its own time: only what lasts counts. */
  #take(key: string, entry: StoreEntry | null): void {
    const id = namesOfKey(key)[1];
    if (id === undefined || key === this.#key) return;
    const report = entry === null ? null : readReport(entry.value);
    if (entry === null || report === null) return void this.#others.delete(id);
    const nowMs = this.#config.clock.nowMs();
    const isMore = report.heard > this.#config.heard();
    const moreSinceMs = isMore ? this.#others.get(id)?.moreSinceMs ?? nowMs : null;
    this.#others.set(id, { report, revision: entry.revision, changedMs: nowMs, moreSinceMs });
  }

  async #report(): Promise<void> {
    if (this.#isWriting || this.#isClosed) return;
    const { store, heard } = this.#config;
    this.#isWriting = true;
    const value = JSON.stringify({ heard: heard(), beat: ++this.#beat } satisfies Report);
    try {
      // A conflict is an own write whose answer was lost: the next read shows its revision.
      await store.set(this.#key, value, this.#view.entries.get(this.#key)?.revision ?? 0);
    } catch {
      // The next report follows after the next read.
    }
    this.#isWriting = false;
  }
}

function readReport(value: string): Report | null {
  try {
    return reportSchema.safeParse(JSON.parse(value)).data ?? null;
  } catch {
    return null;
  }
}
