/** How one process shows another that it has the admin token, without sending it. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

const CHALLENGE_BYTES = 32;

/** What the other end has to make its proof of; fresh for each connection. */
export function makeChallenge(): string {
  return randomBytes(CHALLENGE_BYTES).toString("base64");
}

/** HMAC-SHA-256 of a challenge under the token. */
export function operatorProof(token: string, challenge: string): string {
  return createHmac("sha256", token).update(`llumnix operator ${challenge}`).digest("base64");
}

/** In constant time. */
export function isOperatorProof(token: string, challenge: string, proof: string): boolean {
  const expected = new TextEncoder().encode(operatorProof(token, challenge));
  const given = new TextEncoder().encode(proof);
  return given.length === expected.length && timingSafeEqual(given, expected);
}
