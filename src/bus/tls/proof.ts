/**
 * How both ends of a connection prove that they have the cluster's key, inside TLS:
 *
 *     connecting end: ["prove", nonce]
 *     other end:      ["proof", nonce, HMAC]
 *     connecting end: ["proof", HMAC]
 *     other end:      ["welcome"]
 *
 * Nonces are 32 random bytes. An HMAC is over the role of the end that makes it, both nonces and the
 * version of the protocol: none is of use on another connection, or in the other direction.
 */
import { UsageError } from "../../core/errors.ts";
import type { FrameReader } from "../frame_codec.ts";
import { readFrame, sendFrame } from "../greeting.ts";
import { deriveBytes } from "./authority.ts";

const NONCE_BYTES = 32;
const HMAC = { name: "HMAC", hash: "SHA-256" };

export type ProofKey = CryptoKey;

export async function proofKey(secret: Uint8Array<ArrayBuffer>): Promise<ProofKey> {
  const bytes = await deriveBytes(secret, "proof of membership");
  return await crypto.subtle.importKey("raw", bytes, HMAC, false, ["sign", "verify"]);
}

/** Proves as the end that connected. @throws {UsageError} the other end has another key */
export async function proveFirst(
  conn: Deno.Conn,
  reader: FrameReader,
  key: ProofKey,
  version: number,
): Promise<void> {
  const ours = makeNonce();
  await sendFrame(conn, ["prove", ours]);
  const [word, theirs, proof] = await readFrame(conn, reader);
  const nonces = [ours, String(theirs)];
  if (word !== "proof" || !await isProof(key, "listens", nonces, version, proof)) {
    throw otherKeyError();
  }
  await sendFrame(conn, ["proof", await prove(key, "connects", nonces, version)]);
  const [answer] = await readFrame(conn, reader);
  if (answer !== "welcome") throw otherKeyError();
}

/** Proves as the end that was connected to. @throws {UsageError} the other end has another key */
export async function proveBack(
  conn: Deno.Conn,
  reader: FrameReader,
  key: ProofKey,
  version: number,
): Promise<void> {
  const [word, theirs] = await readFrame(conn, reader);
  if (word !== "prove" || typeof theirs !== "string") throw otherKeyError();
  const ours = makeNonce();
  const nonces = [theirs, ours];
  await sendFrame(conn, ["proof", ours, await prove(key, "listens", nonces, version)]);
  const [second, proof] = await readFrame(conn, reader);
  if (second !== "proof" || !await isProof(key, "connects", nonces, version, proof)) {
    throw otherKeyError();
  }
  await sendFrame(conn, ["welcome"]);
}

async function prove(
  key: ProofKey,
  role: "connects" | "listens",
  nonces: readonly string[],
  version: number,
): Promise<string> {
  const mac = await crypto.subtle.sign(HMAC, key, statement(role, nonces, version));
  return new Uint8Array(mac).toBase64();
}

/** In constant time. */
async function isProof(
  key: ProofKey,
  role: "connects" | "listens",
  nonces: readonly string[],
  version: number,
  proof: unknown,
): Promise<boolean> {
  try {
    const mac = Uint8Array.fromBase64(String(proof));
    return await crypto.subtle.verify(HMAC, key, mac, statement(role, nonces, version));
  } catch {
    return false; // no base64
  }
}

function statement(role: string, nonces: readonly string[], version: number) {
  return new TextEncoder().encode(JSON.stringify(["llumnix", role, ...nonces, version]));
}

function makeNonce(): string {
  return crypto.getRandomValues(new Uint8Array(NONCE_BYTES)).toBase64();
}

function otherKeyError(): UsageError {
  return new UsageError(
    "the other end has another cluster key: give all processes the same --cluster-key-file",
  );
}
