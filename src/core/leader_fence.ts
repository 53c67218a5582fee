import { LlumnixError } from "./errors.ts";
import { type Leadership, type ManagerDecision, supersedes } from "./protocol/leadership.ts";

/** A decision of a manager that no longer leads, or that has never led for this receiver. */
export class SupersededError extends LlumnixError {
  override name = "SupersededError";
  constructor(message: string, readonly known: Leadership) {
    super("conflict", message);
  }
}

/**
 * What a receiver of decisions knows of the leadership. It refuses decisions of a manager whose leadership
 * is over: the store may lose a write that made another one the leader, and a manager that was paused may
 * wake up and go on, so only the receiver is sure to notice.
 */
export class LeaderFence {
  readonly #receiver: string;
  #known: Leadership | null = null;

  /** @param receiver who refuses, for people: "instance-0" */
  constructor(receiver: string) {
    this.#receiver = receiver;
  }

  /** The newest leadership heard of; null: none, as without a cluster. */
  get known(): Leadership | null {
    return this.#known;
  }

  /** A leadership that the store shows: older decisions are refused from now on. */
  learn(leadership: Leadership): void {
    if (this.#known === null || leadership.epoch > this.#known.epoch) this.#known = leadership;
  }

  /**
   * Checks a decision, and remembers its leadership. A manager without a cluster has none: its decisions
   * count until the first one that has a leadership.
   * @throws {SupersededError} another manager leads
   */
  check({ leadership }: ManagerDecision): void {
    const known = this.#known;
    if (known === null) {
      if (leadership !== undefined) this.#known = leadership;
      return;
    }
    if (leadership === undefined || supersedes(known, leadership)) {
      throw new SupersededError(
        `${this.#receiver} refuses a decision of ${describe(leadership)}: ${describe(known)} leads`,
        known,
      );
    }
    this.#known = leadership;
  }
}

function describe(leadership: Leadership | undefined): string {
  return leadership === undefined
    ? "a manager without an epoch"
    : `${leadership.leader} (epoch ${leadership.epoch})`;
}
