import { UnavailableError } from "../core/errors.ts";
import type { Leadership, ManagerDecision } from "../core/protocol/leadership.ts";

/** By what right a manager decides: as the only one, or as the leader of a cluster's managers. */
export class Authority {
  readonly #leadership: (() => Leadership | null) | null;

  /** @param leadership null while another manager leads; absent: there is no other */
  constructor(leadership?: () => Leadership | null) {
    this.#leadership = leadership ?? null;
  }

  /** What each decision carries, so that its receiver can refuse it; null: this manager must not decide. */
  get stamp(): ManagerDecision | null {
    if (this.#leadership === null) return {};
    const leadership = this.#leadership();
    return leadership === null ? null : { leadership };
  }

  /**
   * As {@linkcode stamp}.
   * @throws {UnavailableError} another manager leads
   */
  demand(): ManagerDecision {
    const { stamp } = this;
    if (stamp === null) throw new UnavailableError("this manager does not lead the cluster now");
    return stamp;
  }
}

/** The authority of the only manager. */
export const soleAuthority = new Authority();
