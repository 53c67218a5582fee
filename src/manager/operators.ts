import type { Peer } from "../bus/bus.ts";
import { ConflictError } from "../core/errors.ts";
import { logger } from "../core/log.ts";
import { isOperatorProof, makeChallenge } from "../core/operator_proof.ts";

const log = logger("manager");

/**
 * The peers that may make operators' calls: those of this process, and those that have proved over their
 * connection that they have the admin token.
 */
export class Operators {
  readonly #token: string | null;
  readonly #challenges = new WeakMap<Peer, string>();
  readonly #proven = new WeakSet<Peer>();

  /** @param token null: only this process may */
  constructor(token: string | null) {
    this.#token = token;
  }

  /** A challenge is good for one proof. */
  challenge(peer: Peer): string {
    const challenge = makeChallenge();
    this.#challenges.set(peer, challenge);
    return challenge;
  }

  /** @throws {ConflictError} the proof is of another token, or of another challenge */
  prove(proof: string, peer: Peer): void {
    const challenge = this.#challenges.get(peer);
    this.#challenges.delete(peer);
    if (this.#token === null) throw noTokenError();
    if (challenge !== undefined && isOperatorProof(this.#token, challenge, proof)) {
      this.#proven.add(peer);
      return;
    }
    log.warn("refused an operator: another admin token", { remote: peer.remote });
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
