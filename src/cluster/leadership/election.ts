import { type Leadership, supersedes } from "../../core/protocol/leadership.ts";
import type { Revision, StoreEntry } from "../store/lease_store.ts";
import { type LeaderRecord, readLeaderRecord, writeLeaderRecord } from "./leader_record.ts";

/** A leader beats this often in a lease, so that a beat or two that are late cost nobody the leadership. */
const BEATS_PER_LEASE = 5;
/** A read that takes up to this part of a lease is not slow: 150 ms by default, for stores in another place. */
const USUAL_PART = 3 / 20;
/**
 * A read has to prove this part of the silence before a takeover. The takeover proves the rest: its
 * compare-and-set fails if the leader has beaten since.
 */
const PROVEN_PART = 3 / 5;
/** Pause after a write that failed, as a part of the lease. */
const RETRY_PART = 1 / 15;
/** Writes without an answer that are remembered. An own record of an older one counts as given up. */
const MAX_UNANSWERED = 4;

export interface ElectionConfig {
  /** Of this process, and never of another: a process that starts again has another id. */
  readonly id: string;
  /** Where it serves while it leads. */
  readonly address: string;
  /** How long it may be silent while it leads, and how long it waits for a leader that has said nothing yet. */
  readonly leaseMs: number;
}

/** What an election wants written: a compare-and-set of the leader's record. */
export interface WantedWrite {
  readonly value: string;
  readonly expected: Revision;
}

/** A change of this candidate's own leadership. */
export type ElectionChange =
  | { readonly type: "leads"; readonly leadership: Leadership }
  | { readonly type: "follows"; readonly reason: string };

interface Attempt {
  readonly record: LeaderRecord;
  readonly value: string;
  readonly expected: Revision;
  readonly sentMs: number;
}

/**
 * Decides when one candidate leads: a state machine without clock and store. {@linkcode Candidate} tells it
 * what the store says and does what it wants written; the simulation runs the same two.
 *
 * The store holds one record: epoch, leader, lease, beat. Only its compare-and-set is relied on, neither an
 * expiry nor a clock of another process. A candidate takes over, with the next epoch, when the record has not
 * changed for a lease by the candidate's own clock. Three rules shorten or lengthen that:
 *
 * - Keep: a store that is away ends no leadership. The leader goes on until a receiver of its decisions
 *   refuses them, because it knows a newer leader. Silence of the leader is counted only while the store
 *   answers: the time of a read that fails, or waits, is not the leader's.
 * - Early: a leader whose process has ended, which a refused connection proves, is replaced at once.
 * - Floor: no candidate takes an epoch that it has heard of, even if the store has forgotten it.
 */
export class Election {
  readonly #config: ElectionConfig;
  readonly #onChange: (change: ElectionChange) => void;
  /** What is in the store; null: nothing. */
  #record: LeaderRecord | null = null;
  #revision: Revision = 0;
  #value: string | null = null;
  /** The store was read, and nothing has made that read useless since. */
  #isRead = false;
  /** Reads that were sent before do not show what a write of this candidate did. */
  #readFromMs = -Infinity;
  /** Since when the record has not changed, without the time in which the store was away; null: not counted. */
  #silentSinceMs: number | null = null;
  /** The silence that the latest read proves. */
  #silenceMs = 0;
  /** The newest leadership this candidate has heard of. */
  #known: Leadership | null = null;
  /** The own epoch while it leads; else 0. */
  #epoch = 0;
  /** The latest own epoch that is over: a write of it that is answered late does not bring it back. */
  #overEpoch = 0;
  #beat = 0;
  #beatDueMs = 0;
  /** The write under way. */
  #attempt: Attempt | null = null;
  /** Writes of which it is not known whether they were done, or may be done yet. */
  #unanswered: Attempt[] = [];
  #retryMs = -Infinity;
  /** A leader whose process has ended. */
  #ended: string | null = null;
  /** It has resigned, and the store does not know it yet. */
  #vacancy: { readonly epoch: number; readonly heir?: string } | null = null;
  /** False: it never leads again. */
  #isCandidate = true;

  constructor(config: ElectionConfig, onChange: (change: ElectionChange) => void) {
    this.#config = config;
    this.#onChange = onChange;
  }

  /** To be stamped on a decision now; null: this candidate must not decide. */
  get leadership(): Leadership | null {
    return this.#epoch > 0 ? { epoch: this.#epoch, leader: this.#config.id } : null;
  }

  /** What the store says, as far as this candidate knows. */
  get record(): LeaderRecord | null {
    return this.#record;
  }

  /** The newest leadership heard of. */
  get known(): Leadership | null {
    return this.#known;
  }

  /**
   * The store's record, as a read or a watch shows it; null: there is none.
   * @throws {StoreRefusedError} it is not the record of a leader
   */
  observe(entry: StoreEntry | null, nowMs: number): void {
    const isSame = (entry?.revision ?? 0) === this.#revision &&
      (entry?.value ?? null) === this.#value;
    if (isSame) return;
    const record = entry === null ? null : readLeaderRecord(entry);
    this.#adopt(record, entry?.value ?? null, entry?.revision ?? 0, nowMs);
    if (record === null) return this.#hurryBeat(nowMs);
    const { epoch, leader } = record;
    const isMine = leader === this.#config.id;
    if (this.#epoch > 0 && !isMine && epoch >= this.#epoch) {
      this.#follow(leader === "" ? `epoch ${epoch} is over` : `${leader} leads in epoch ${epoch}`);
    } else if (epoch < this.#epoch) {
      this.#hurryBeat(nowMs); // the store has gone back to an older state
    } else if (isMine) this.#recognise(entry!.value);
    this.#know(record);
  }

  /**
   * The store has answered a read that was sent at `sentMs`. Call {@linkcode observe} before, if the answer
   * shows a change.
   */
  answered(sentMs: number, nowMs: number): void {
    if (sentMs >= this.#readFromMs) this.#isRead = true;
    if (this.#silentSinceMs === null) this.#silentSinceMs = nowMs;
    // The leader's beat may have waited as long as this answer. The way to a distant store is no wait: it
    // delays each beat alike.
    const usualMs = this.#config.leaseMs * USUAL_PART;
    this.#silentSinceMs += Math.max(0, nowMs - sentMs - usualMs);
    this.#silenceMs = Math.max(0, sentMs - this.#silentSinceMs);
  }

  /** The leader has been silent for a lease, and the latest read does not prove it: another one would. */
  needsProof(nowMs: number): boolean {
    return this.#silenceEndsMs <= nowMs && !this.#isProven;
  }

  /** When the next write may be due without any news, by the caller's clock; Infinity: not without news. */
  get dueMs(): number {
    return this.#epoch > 0 ? this.#beatDueMs : this.#silenceEndsMs;
  }

  /** A read has failed: the leader's beats may fail too. */
  away(): void {
    this.#silentSinceMs = null;
    this.#silenceMs = 0;
  }

  /** A receiver of decisions knows a leadership. */
  learn(leadership: Leadership, nowMs: number): void {
    this.#know(leadership);
    const own = this.leadership;
    if (own === null || !supersedes(leadership, own)) return;
    const { epoch, leader } = leadership;
    this.#follow(`a receiver of its decisions knows ${leader}, which leads in epoch ${epoch}`);
    this.#readAgain(nowMs); // what the store says from now on tells who is next
  }

  /** A refused connection proves that the leader's process has ended. */
  leaderEnded(leader: string): void {
    this.#ended = leader;
  }

  /**
   * Gives the leadership to a follower, or to any; a no-op for a follower.
   * @param mayReturn false: this candidate never leads again
   */
  resign(reason: string, heir?: string, mayReturn = true): void {
    if (!mayReturn) this.#isCandidate = false;
    if (this.#epoch === 0) return;
    this.#vacancy = { epoch: this.#epoch, heir };
    this.#follow(reason);
  }

  /** Whether a resignation is still to be written. */
  get isResigning(): boolean {
    return this.#vacancy !== null;
  }

  /**
   * What is to be written now; null: nothing. After one is returned, the next follows only after
   * {@linkcode written}, {@linkcode conflicted} or {@linkcode failed}.
   */
  nextWrite(nowMs: number): WantedWrite | null {
    if (this.#attempt !== null || !this.#isRead || nowMs < this.#retryMs) return null;
    const record = this.#wantedRecord(nowMs);
    if (record === null) return null;
    const value = writeLeaderRecord(record);
    this.#attempt = { record, value, expected: this.#revision, sentMs: nowMs };
    return { value, expected: this.#revision };
  }

  /** The write was done. */
  written(revision: Revision, nowMs: number): void {
    const attempt = this.#takeAttempt();
    // Another change was seen meanwhile: it is newer, unless it is this write.
    if (this.#revision !== attempt.expected && this.#value !== attempt.value) return;
    this.#adopt(attempt.record, attempt.value, revision, nowMs);
    this.#accept(attempt);
  }

  /** The write was refused: somebody else has written, or an earlier write of this candidate was done. */
  conflicted(nowMs: number): void {
    this.failed(nowMs); // also this very write may have been done, and then repeated on the way
  }

  /** Nobody knows whether the write was done. */
  failed(nowMs: number): void {
    this.#unanswered = [...this.#unanswered.slice(1 - MAX_UNANSWERED), this.#takeAttempt()];
    this.#retryMs = nowMs + this.#config.leaseMs * RETRY_PART;
    this.#readAgain(nowMs);
  }

  #wantedRecord(nowMs: number): LeaderRecord | null {
    const { id, address, leaseMs } = this.#config;
    const beat = this.#beat + 1;
    if (this.#vacancy !== null) {
      const { epoch, heir } = this.#vacancy;
      return { epoch, leader: "", address: "", leaseMs, beat, heir };
    }
    if (this.#epoch > 0) {
      return nowMs >= this.#beatDueMs
        ? { epoch: this.#epoch, leader: id, address, leaseMs, beat }
        : null;
    }
    if (!this.#isCandidate || !this.#mayTakeOver(nowMs)) return null;
    const epoch = Math.max(this.#record?.epoch ?? 0, this.#known?.epoch ?? 0) + 1;
    return { epoch, leader: id, address, leaseMs, beat };
  }

  /** When the record will not have changed for a lease; Infinity while silence is not counted. */
  get #silenceEndsMs(): number {
    return this.#silentSinceMs === null ? Infinity : this.#silentSinceMs + this.#silenceLimitMs;
  }

  get #isProven(): boolean {
    return this.#silenceMs >= this.#silenceLimitMs * PROVEN_PART;
  }

  get #silenceLimitMs(): number {
    return this.#record?.leaseMs ?? this.#config.leaseMs;
  }

  #mayTakeOver(nowMs: number): boolean {
    const record = this.#record;
    if (this.#silenceEndsMs <= nowMs && this.#isProven) return true;
    // A store that has lost the record gets it back from the leader, if one was there.
    if (record === null) return this.#known === null;
    if (record.leader === "") {
      return record.heir === undefined || record.heir === this.#config.id;
    }
    // Its own, of an epoch that it has given up: nobody else beats.
    return record.leader === this.#ended || record.leader === this.#config.id;
  }

  /** An own record: it may be of a write whose answer is not known. */
  #recognise(value: string): void {
    const attempts = this.#attempt === null
      ? this.#unanswered
      : [this.#attempt, ...this.#unanswered];
    const attempt = attempts.find((one) => one.value === value);
    if (attempt === undefined) return;
    this.#unanswered = [];
    this.#accept(attempt);
  }

  /** A write of this candidate was done. */
  #accept({ record, sentMs }: Attempt): void {
    this.#beat = Math.max(this.#beat, record.beat);
    if (record.leader === "") {
      if (this.#vacancy?.epoch === record.epoch) this.#vacancy = null;
      return;
    }
    this.#beatDueMs = sentMs + this.#config.leaseMs / BEATS_PER_LEASE;
    if (this.#epoch === record.epoch) return;
    const isOver = record.epoch <= this.#overEpoch ||
      (this.#known !== null && supersedes(this.#known, record));
    if (isOver || this.#vacancy !== null || !this.#isCandidate) return;
    this.#epoch = record.epoch;
    this.#know(record);
    this.#onChange({ type: "leads", leadership: this.leadership! });
  }

  #adopt(record: LeaderRecord | null, value: string | null, revision: Revision, nowMs: number) {
    if (record?.leader !== this.#record?.leader) this.#ended = null;
    this.#record = record;
    this.#value = value;
    this.#revision = revision;
    this.#silenceMs = 0;
    if (this.#silentSinceMs !== null) this.#silentSinceMs = nowMs;
    // Another leader has come: nothing is left to resign from.
    const vacancy = this.#vacancy;
    if (vacancy !== null && record !== null) {
      const isGone = record.epoch > vacancy.epoch ||
        (record.leader !== this.#config.id && record.epoch === vacancy.epoch);
      if (isGone) this.#vacancy = null;
    }
  }

  #know({ epoch, leader }: Leadership): void {
    if (this.#known === null || epoch > this.#known.epoch) this.#known = { epoch, leader };
  }

  #follow(reason: string): void {
    if (this.#epoch === 0) return;
    this.#overEpoch = this.#epoch;
    this.#epoch = 0;
    this.#onChange({ type: "follows", reason });
  }

  #hurryBeat(nowMs: number): void {
    this.#beatDueMs = Math.min(this.#beatDueMs, nowMs);
  }

  #takeAttempt(): Attempt {
    const attempt = this.#attempt;
    if (attempt === null) throw new Error("no write is under way");
    this.#attempt = null;
    return attempt;
  }

  #readAgain(nowMs: number): void {
    this.#isRead = false;
    this.#readFromMs = nowMs;
  }
}
