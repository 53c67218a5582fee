import type { Peer } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { ConflictError, OverloadedError } from "../core/errors.ts";
import { logger } from "../core/log.ts";
import { isOperatorProof, makeChallenge } from "../core/operator_proof.ts";
import { FREE_ATTEMPTS, WrongAttempts } from "../core/wrong_attempts.ts";

/** A guesser can connect anew for each guess, so all peers count as one. */
const ANYWHERE = "bus";

const log = logger("manager");

/**
 * The peers that may make operators' calls: those of this process, and those that have proved over their
 * connection that they have the admin token.
 */
export class Operators {
  readonly #token: string | null;
  readonly #wrong: WrongAttempts;
  readonly #challenges = new WeakMap<Peer, string>();
  readonly #proven = new WeakSet<Peer>();

  /** @param token null: only this process may */
  constructor(token: string | null, clock: Clock) {
    this.#token = token;
    this.#wrong = new WrongAttempts(clock);
  }

  /** A challenge is good for one proof. */
  challenge(peer: Peer): string {
    const challenge = makeChallenge();
    this.#challenges.set(peer, challenge);
    return challenge;
  }

  /**
   * Looks at a proof, after a second if many wrong ones came within a minute.
   * @throws {ConflictError} the proof is of another token, or of another challenge
   * @throws {OverloadedError} too many proofs wait already
   */
  async prove(proof: string, peer: Peer): Promise<void> {
    const challenge = this.#challenges.get(peer);
    this.#challenges.delete(peer);
    if (this.#token === null) throw noTokenError();
    if (!await this.#wrong.admit(ANYWHERE)) {
      throw new OverloadedError("too many wrong proofs of the admin token came; retry later");
    }
    if (challenge !== undefined && isOperatorProof(this.#token, challenge, proof)) {
      this.#proven.add(peer);
      return;
    }
    const count = this.#wrong.note(ANYWHERE);
    if (count <= FREE_ATTEMPTS) {
      log.warn("refused an operator: another admin token", { remote: peer.remote });
    }
    if (count === FREE_ATTEMPTS) log.warn("further wrong proofs are slowed down and not logged");
    throw new ConflictError(
      "the manager has another admin token: give it and its API servers the same (--admin-token)",
    );
  }

  /** @throws {ConflictError} the peer may not make operators' calls */
  check(peer: Peer): void {
    if (peer.pid === Deno.pid || this.#proven.has(peer)) return;
    if (this.#token === null) throw noTokenError();
    throw new ConflictError("operators' calls need a proof of the admin token first");
  }
}

function noTokenError(): ConflictError {
  return new ConflictError(
    "the manager has no admin token: start it with the one of its API servers (--admin-token)",
  );
}
