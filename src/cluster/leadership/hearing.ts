import * as z from "zod";
import type { Clock } from "../../core/clock.ts";
import { type LeaseStore, namesOfKey, type StoreEntry, storeKey } from "../store/lease_store.ts";
import { StoreView } from "../store/store_view.ts";

/** Where each candidate reports. */
export const CANDIDATES = "candidates/";
/** A report this many periods old says nothing. */
const FRESH_PERIODS = 3;
/** For so long another candidate has to hear more. Its reports, one for each period, may come a little early. */
const MORE_PERIODS = 0.8;
/** The leader removes reports of candidates that have been silent for so long. */
const FORGOTTEN_PERIODS = 60;
/** See {@linkcode hearingPeriodMs}. */
const PERIOD_LEASES = 3 / 2;

/**
 * The time in which an instance calls every manager, and a candidate reports how many did. Longer than a
 * lease: a call whose packets are lost twice is late by a second, and says nothing of the network.
 */
export function hearingPeriodMs(leaseMs: number): number {
  return leaseMs * PERIOD_LEASES;
}

const reportSchema = z.object({
  heard: z.int().min(0),
  beat: z.int().min(0),
  /** Bus address of the candidate, where instances say that they are there. */
  address: z.string().max(1_024).optional(),
});
type Report = z.infer<typeof reportSchema>;

/** What is known of another candidate. */
interface Other {
  readonly report: Report;
  readonly revision: number;
  /** When the report last changed. */
  readonly changedMs: number;
  /** Which of its reports was the first to name more instances than this candidate hears; null: the latest did not. */
  readonly moreSinceMs: number | null;
}

export interface HearingConfig {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly id: string;
  /** Where this candidate listens. */
  readonly address: string;
  /** See {@linkcode hearingPeriodMs}. */
  readonly periodMs: number;
  /** How many instances this candidate hears now. */
  readonly heard: () => number;
}

/**
 * How many instances each candidate hears, so that a leader which the network has cut off from instances
 * can give way to a candidate that is not. Each candidate writes its count to the store once in a period.
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
    const { store, clock, periodMs } = config;
    this.#view = new StoreView({
      store,
      clock,
      scope: CANDIDATES,
      readIntervalMs: periodMs,
      onChange: (key, entry) => this.#take(key, entry),
      onAnswer: () => this.#report(),
    });
  }

  /**
   * The candidate that has heard more instances than this one for about a period, in two reports at least;
   * of several the one that hears the most. Null: there is none. To be called several times in a period.
   */
  findBetter(): string | null {
    const { clock, periodMs } = this.#config;
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
      const isFresh = nowMs - changedMs <= FRESH_PERIODS * periodMs;
      // One report does not do: its candidate may have ended just after it.
      const hasLasted = moreSinceMs !== null && changedMs - moreSinceMs >= MORE_PERIODS * periodMs;
      if (!isFresh || !hasLasted) continue;
      if (best === null || heard > best.heard) best = { id, heard };
    }
    return best?.id ?? null;
  }

  /** This candidate leads from now on: what others heard before is not compared. */
  restart(): void {
    for (const [id, other] of this.#others) this.#others.set(id, { ...other, moreSinceMs: null });
  }

  /** Removes what candidates have left that are gone. For the leader, now and then. */
  clean(): void {
    const { store, clock, periodMs } = this.#config;
    const nowMs = clock.nowMs();
    for (const [id, other] of this.#others) {
      if (nowMs - other.changedMs < FORGOTTEN_PERIODS * periodMs) continue;
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
    const { store, heard, address } = this.#config;
    this.#isWriting = true;
    const report: Report = { heard: heard(), beat: ++this.#beat, address };
    const value = JSON.stringify(report);
    try {
      // A conflict is an own write whose answer was lost: the next read shows its revision.
      await store.set(this.#key, value, this.#view.entries.get(this.#key)?.revision ?? 0);
    } catch {
      // The next report follows after the next read.
    }
    this.#isWriting = false;
  }
}

/** Null: it is no report. */
export function readReport(value: string): Report | null {
  try {
    return reportSchema.safeParse(JSON.parse(value)).data ?? null;
  } catch {
    return null;
  }
}
