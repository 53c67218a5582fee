import type { Bus } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import type { Leadership } from "../../core/protocol/leadership.ts";
import type { LeaseStore, StoreEntry } from "../store/lease_store.ts";
import { StoreView } from "../store/store_view.ts";
import { Election, type ElectionChange } from "./election.ts";
import { Hearing, hearingPeriodMs } from "./hearing.ts";
import { LeaderGuard, type LeaderGuardConfig } from "./leader_guard.ts";
import { LEADER_KEY, type LeaderRecord } from "./leader_record.ts";

/** Takeover takes little over a lease. */
export const DEFAULT_LEASE_MS = 1_000;
/** A call of the store may take such a part of a lease, so that a beat that fails can be repeated in time. */
export const CALLS_PER_LEASE = 2;
/** Reads beside the watch, in a lease. */
export const READS_PER_LEASE = 5;
/** Looks at what is due, in a lease, beyond those at the moment when something is. */
const TICKS_PER_LEASE = 15;
/** However long the lease is. */
const MAX_GUARD_CONNECT_MS = 2_000, MAX_GUARD_RETRY_MS = 300;

export interface CandidateConfig {
  readonly store: LeaseStore;
  readonly clock: Clock;
  /** Of this process alone: see {@linkcode ElectionConfig.id}. */
  readonly id: string;
  /** Bus address at which this process serves while it leads. */
  readonly address: string;
  readonly leaseMs?: number;
  /** For the connection to the leader. */
  readonly bus: Bus;
  /**
   * How many instances this process hears now. A leader resigns in favour of a follower that hears more.
   * Absent: it is not compared.
   */
  readonly heard?: () => number;
  /** See {@linkcode LeaderGuardConfig}, as the next. */
  readonly settings?: LeaderGuardConfig["settings"];
  readonly onStranger?: LeaderGuardConfig["onStranger"];
  /** This candidate leads now, or no longer. */
  readonly onChange: (change: ElectionChange) => void;
  /** The record of the leader has changed; null: there is none. */
  readonly onRecord?: (record: LeaderRecord | null) => void;
  /** The store does not answer, or, with null, answers again. Nothing else changes. */
  readonly onStoreProblem?: (error: Error | null) => void;
}

/** Stands for election: tells an {@linkcode Election} what the store says, and writes what it wants. */
export class Candidate {
  readonly #config: CandidateConfig;
  readonly #election: Election;
  readonly #view: StoreView;
  readonly #guard: LeaderGuard;
  readonly #hearing: Hearing | null;
  readonly #leaseMs: number;
  #problem: Error | null = null;
  /** Why the record cannot be read. */
  #unreadable: Error | null = null;
  /** Why the latest write failed, until the store takes one: it may answer reads, and have no room left. */
  #unwritable: Error | null = null;
  #cancelTick: () => void = () => {};
  #isClosing = false;
  #isClosed = false;
  /** Settled after {@linkcode close}, once the resignation is written. */
  readonly #resigned = Promise.withResolvers<void>();

  /** Stands at once. */
  constructor(config: CandidateConfig) {
    this.#config = config;
    const { store, clock, id, address, leaseMs = DEFAULT_LEASE_MS } = config;
    this.#leaseMs = leaseMs;
    this.#election = new Election({ id, address, leaseMs }, (change) => {
      if (change.type === "leads") this.#hearing?.restart();
      if (!this.#isClosed) config.onChange(change);
    });
    this.#view = new StoreView({
      store,
      clock,
      scope: LEADER_KEY,
      readIntervalMs: leaseMs / READS_PER_LEASE,
      onChange: (_key, entry) => this.#observe(entry),
      onAnswer: (sentMs) => this.#answered(sentMs),
      onAway: (error) => this.#away(error),
    });
    this.#guard = new LeaderGuard({
      bus: config.bus,
      clock,
      connectMs: Math.min(leaseMs, MAX_GUARD_CONNECT_MS),
      retryMs: Math.min(leaseMs / READS_PER_LEASE, MAX_GUARD_RETRY_MS),
      onEnded: (leader) => this.#leaderEnded(leader),
      settings: config.settings,
      onStranger: config.onStranger,
    });
    const { heard } = config;
    const periodMs = hearingPeriodMs(leaseMs);
    this.#hearing = heard ? new Hearing({ store, clock, id, address, periodMs, heard }) : null;
    this.#tick();
  }

  /** To be stamped on a decision now; null: this process must not decide. */
  get leadership(): Leadership | null {
    return this.#isClosed ? null : this.#election.leadership;
  }

  /** The leader, as the store last said. */
  get record(): LeaderRecord | null {
    return this.#election.record;
  }

  /** Why the store cannot be used now; null if it can. */
  get storeProblem(): Error | null {
    return this.#problem;
  }

  /** A receiver of decisions knows this leadership: if it is newer, this candidate follows. */
  learn(leadership: Leadership): void {
    this.#election.learn(leadership, this.#config.clock.nowMs());
    this.#view.refresh();
  }

  /** Gives the leadership to a follower, or to any; a no-op for a follower. */
  resign(reason: string, heir?: string): void {
    this.#election.resign(reason, heir);
    this.#act();
  }

  /**
   * Stands no more. A leader resigns first, so that another one takes over at once, if the store takes the
   * resignation within a third of a lease.
   * @param heir who takes over; default: any follower
   */
  async close(heir?: string): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#election.resign("it stops", heir, false);
    if (this.#election.isResigning) {
      const cancel = this.#config.clock.after(this.#leaseMs / 3, () => this.#resigned.resolve());
      this.#act();
      await this.#resigned.promise;
      cancel();
    }
    this.#isClosed = true;
    this.#cancelTick();
    this.#view.close();
    this.#guard.close();
    await this.#hearing?.close();
  }

  #leaderEnded(leader: string): void {
    this.#election.leaderEnded(leader);
    this.#act();
  }

  #observe(entry: StoreEntry | null): void {
    try {
      this.#election.observe(entry, this.#config.clock.nowMs());
      if (this.#unreadable !== null) this.#view.refresh();
      this.#unreadable = this.#unwritable = null;
    } catch (error) {
      this.#unreadable = error as Error;
      return;
    }
    this.#noteRecord();
    this.#act();
  }

  #answered(sentMs: number): void {
    if (this.#unreadable !== null) return this.#away(this.#unreadable);
    this.#note(this.#unwritable);
    this.#election.answered(sentMs, this.#config.clock.nowMs());
    this.#act();
  }

  #noteRecord(): void {
    const { record } = this.#election;
    this.#guard.watch(record?.leader === this.#config.id ? null : record);
    this.#config.onRecord?.(record);
  }

  #away(error: Error): void {
    this.#election.away();
    this.#note(error);
  }

  #note(problem: Error | null): void {
    const isNew = problem?.message !== this.#problem?.message;
    this.#problem = problem;
    if (isNew) this.#config.onStoreProblem?.(problem);
  }

  #tick(): void {
    const { clock } = this.#config;
    const usualMs = this.#leaseMs / TICKS_PER_LEASE;
    const dueInMs = this.#election.dueMs - clock.nowMs();
    // What is due already waits for something else, which acts when it comes.
    const pauseMs = dueInMs > 0 ? Math.min(usualMs, Math.ceil(dueInMs)) : usualMs;
    this.#cancelTick = clock.after(pauseMs, () => this.#tick());
    if (this.leadership !== null) this.#giveWay();
    else if (this.#election.needsProof(clock.nowMs())) this.#view.refreshIfIdle();
    this.#act();
  }

  /** To a follower that hears more instances. */
  #giveWay(): void {
    this.#hearing?.clean();
    const heir = this.#hearing?.findBetter() ?? null;
    if (heir !== null) this.#election.resign(`${heir} hears more instances`, heir);
  }

  async #act(): Promise<void> {
    if (this.#isClosed || this.#unreadable !== null) return;
    if (this.#isClosing && !this.#election.isResigning) this.#resigned.resolve();
    const { clock, store } = this.#config;
    const write = this.#election.nextWrite(clock.nowMs());
    if (write === null) return;
    const { value, expected } = write;
    try {
      const revision = await store.set(LEADER_KEY, value, expected);
      if (this.#isClosed) return;
      this.#unwritable = null;
      if (revision !== null) this.#election.written(revision, clock.nowMs());
      else this.#election.conflicted(clock.nowMs());
      if (revision === null) this.#view.refresh();
      else this.#noteRecord();
    } catch (error) {
      if (this.#isClosed) return;
      this.#note(this.#unwritable = error as Error);
      this.#election.failed(clock.nowMs());
      this.#view.refresh();
    }
    this.#act();
  }
}
