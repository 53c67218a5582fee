import { hearingPeriodMs } from "../../cluster/leadership/hearing.ts";
import type { Leadership } from "../../core/protocol/leadership.ts";
import type { LeadershipScenario } from "./scenario.ts";
import type { Observer } from "./processes.ts";

/** Longest standstill of decisions at a receiver, by kind; chaos has none. */
const MAX_GAP_MS = {
  store_away: 500,
  leader_killed: 500,
  /** Beyond the lease, at whose end others take over. */
  leader_cut: 1_000,
  /** Beyond four periods of hearing: the reports of all candidates, and one in which the difference lasts. */
  instances_cut: 2_000,
};
const LEASES_WITHOUT_DECISION = {
  store_away: 0,
  leader_killed: 0,
  leader_cut: 1,
  instances_cut: 4 * hearingPeriodMs(1),
};
/** New epochs that a fault may cost: the store of a cut-off leader, and what is refused meanwhile. */
const EPOCHS_PER_FAULT = 4;

/** Checks what must hold at each moment of a run. */
export class LeadershipChecks implements Observer {
  readonly violations: string[] = [];
  readonly #scenario: LeadershipScenario;
  readonly #nowMs: () => number;
  readonly #obeyed = new Map<string, Leadership & { readonly atMs: number }>();
  /** Who decided first in each epoch. */
  readonly #deciders = new Map<number, string>();
  /** Epochs that managers know to be over, because a receiver told them so. */
  readonly #over = new Map<string, number>();
  /** Leaderships, in the order in which they began. */
  readonly leaderships: Leadership[] = [];
  longestGapMs = 0;

  constructor(scenario: LeadershipScenario, nowMs: () => number) {
    this.#scenario = scenario;
    this.#nowMs = nowMs;
  }

  fail(what: string): void {
    if (this.violations.length < 20) this.violations.push(`${this.#nowMs().toFixed()} ms: ${what}`);
  }

  leads(leadership: Leadership): void {
    this.leaderships.push(leadership);
    const { kind } = this.#scenario;
    const { epoch, leader } = leadership;
    if (kind === "store_away" && this.leaderships.length > 1) {
      this.fail(`${leader} began epoch ${epoch} although only the store was away`);
    }
  }

  follows(): void {}

  decides(id: string, { epoch }: Leadership): void {
    const over = this.#over.get(id) ?? 0;
    if (epoch <= over) {
      this.fail(`${id} decides in epoch ${epoch}, although it was told that epoch ${over} is over`);
    }
    const decider = this.#deciders.get(epoch);
    if (decider === undefined) this.#deciders.set(epoch, id);
    else if (decider !== id && !this.#mayRepeatEpochs) {
      this.fail(`${id} decides in epoch ${epoch}, which is that of ${decider}`);
    }
  }

  superseded(id: string, known: Leadership): void {
    // Of an equal epoch, its own is over.
    const own = this.leaderships.findLast(({ leader }) => leader === id);
    const over = Math.min(own?.epoch ?? 0, known.leader === id ? known.epoch - 1 : known.epoch);
    this.#over.set(id, Math.max(over, this.#over.get(id) ?? 0));
  }

  obeys(receiver: string, { epoch, leader }: Leadership): void {
    const atMs = this.#nowMs();
    const last = this.#obeyed.get(receiver);
    this.#obeyed.set(receiver, { epoch, leader, atMs });
    if (last === undefined) return;
    const gapMs = atMs - last.atMs;
    this.longestGapMs = Math.max(this.longestGapMs, gapMs);
    if (epoch < last.epoch || (epoch === last.epoch && leader !== last.leader)) {
      this.fail(
        `${receiver} obeys ${leader} of epoch ${epoch} after ${last.leader} of epoch ${last.epoch}`,
      );
    }
    const { kind, leaseMs } = this.#scenario;
    if (kind === "chaos") return;
    const limitMs = MAX_GAP_MS[kind] + LEASES_WITHOUT_DECISION[kind] * leaseMs;
    if (gapMs > limitMs) {
      this.fail(`${receiver} heard no decision for ${gapMs.toFixed()} ms, the limit is ${limitMs}`);
    }
  }

  /** All has been well for long. */
  checkEnd(leaders: readonly Leadership[]): void {
    if (leaders.length !== 1) {
      const names = leaders.map(({ epoch, leader }) => `${leader} (epoch ${epoch})`).join(", ");
      this.fail(`${leaders.length} managers lead at the end: ${names}`);
    }
    const numFaults = this.#scenario.actions.length;
    const limit = 1 + EPOCHS_PER_FAULT * (numFaults + 1);
    if (this.leaderships.length > limit) {
      this.fail(`${this.leaderships.length} leaderships after ${numFaults} faults`);
    }
  }

  /** A store that acknowledges a write, and then loses or replaces it, may give an epoch away twice. */
  get #mayRepeatEpochs(): boolean {
    const { actions, storeFaults } = this.#scenario;
    return storeFaults.racingWrites > 0 || actions.some(({ type }) => type === "restore_store");
  }
}
