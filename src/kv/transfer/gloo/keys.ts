/**
 * How two members of a group prove to each other that they have the group's secret, which never travels
 * between them. Each end sends a nonce; the secret and both nonces give the keys of the connection, which
 * are of no use on another connection.
 */
import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";

export const NONCE_BYTES = 32;
const KEY_BYTES = 32;

/** The keys of one connection. */
export interface ConnectionKeys {
  /** Of the proofs. */
  readonly proof: Uint8Array;
  /** Seals what the end sends that opened the connection. */
  readonly fromDialer: Uint8Array;
  /** Seals what the other end sends. */
  readonly fromListener: Uint8Array;
}

export interface Nonces {
  readonly dialer: Uint8Array;
  readonly listener: Uint8Array;
}

export function makeNonce(): Uint8Array<ArrayBuffer> {
  return new Uint8Array(randomBytes(NONCE_BYTES));
}

/** HKDF-SHA-256 (RFC 5869) of the group's secret. */
export function connectionKeys(secret: string, { dialer, listener }: Nonces): ConnectionKeys {
  const salt = new Uint8Array([...dialer, ...listener]);
  const bytes = new Uint8Array(
    hkdfSync("sha256", secret, salt, "llumnix gloo v2", 3 * KEY_BYTES),
  );
  const [proof, fromDialer, fromListener] = [0, 1, 2].map((i) =>
    bytes.subarray(i * KEY_BYTES, (i + 1) * KEY_BYTES)
  );
  return { proof, fromDialer, fromListener };
}

/**
 * HMAC-SHA-256 by which an end proves that it has the secret.
 * @param by the end that proves
 * @param statement the greeting that the dialer sent: both ends prove that they mean the same
 */
export function prove(
  { proof }: ConnectionKeys,
  by: "dialer" | "listener",
  statement: string,
): string {
  return createHmac("sha256", proof).update(JSON.stringify([by, statement])).digest("base64");
}

/** Whether a proof is right. In constant time. */
export function isProof(
  keys: ConnectionKeys,
  by: "dialer" | "listener",
  statement: string,
  proof: unknown,
): boolean {
  const expected = new TextEncoder().encode(prove(keys, by, statement));
  const given = new TextEncoder().encode(String(proof));
  return given.length === expected.length && timingSafeEqual(given, expected);
}
