import type { Clock } from "../../core/clock.ts";
import type { LeaderFence } from "../../core/leader_fence.ts";
import type { LeaseStore, StoreEntry } from "../store/lease_store.ts";
import { StoreView } from "../store/store_view.ts";
import { DEFAULT_LEASE_MS, READS_PER_LEASE } from "./candidate.ts";
import { LEADER_KEY, type LeaderRecord, readLeaderRecord } from "./leader_record.ts";

export interface LeaderFinderConfig {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly leaseMs?: number;
  /** Refuses decisions of leaders that are older than the one found. */
  readonly fence: LeaderFence;
  /** The leader serves at another address than the one before. */
  readonly onMove: (address: string) => void;
  /** The store does not answer, or, with null, answers again. */
  readonly onStoreProblem?: (error: Error | null) => void;
}

/** How instances and API servers find the manager that leads: the store tells, and later who follows it. */
export class LeaderFinder {
  readonly #config: LeaderFinderConfig;
  readonly #view: StoreView;
  #address: string | null = null;
  #problem: Error | null = null;
  /** Why the record cannot be read. */
  #unreadable: Error | null = null;
  #found = Promise.withResolvers<string>();

  /** Looks at once. */
  constructor(config: LeaderFinderConfig) {
    this.#config = config;
    const { store, clock, leaseMs = DEFAULT_LEASE_MS } = config;
    this.#view = new StoreView({
      store,
      clock,
      scope: LEADER_KEY,
      readIntervalMs: leaseMs / READS_PER_LEASE,
      onChange: (_key, entry) => this.#take(entry),
      onAnswer: () => this.#note(this.#unreadable),
      onAway: (error) => this.#note(error),
    });
  }

  /** Where the leader serves, as far as is known; null: nobody has led yet. */
  get address(): string | null {
    return this.#address;
  }

  /** Resolves with the address of the first leader. */
  get found(): Promise<string> {
    return this.#found.promise;
  }

  /** Why the store cannot be used now; null if it can. */
  get storeProblem(): Error | null {
    return this.#problem;
  }

  close(): void {
    this.#view.close();
  }

  /** A leader that has resigned stays the last one known, until another one follows. */
  #take(entry: StoreEntry | null): void {
    this.#unreadable = null;
    if (entry === null) return;
    let record: LeaderRecord;
    try {
      record = readLeaderRecord(entry);
    } catch (error) {
      return this.#note(this.#unreadable = error as Error);
    }
    const { epoch, leader, address } = record;
    const isOlder = epoch < (this.#config.fence.known?.epoch ?? 0);
    if (leader === "" || isOlder) return; // older: the store has gone back, and will be corrected
    this.#config.fence.learn({ epoch, leader });
    if (address === this.#address) return;
    this.#address = address;
    this.#found.resolve(address);
    this.#config.onMove(address);
  }

  #note(problem: Error | null): void {
    const isNew = problem?.message !== this.#problem?.message;
    this.#problem = problem;
    if (isNew) this.#config.onStoreProblem?.(problem);
  }
}
