/**
 * Members of a group by hand: they have the secret and greet as they should, and then say whatever a test
 * wants them to.
 */
import {
  type ConnectionKeys,
  connectionKeys,
  makeNonce,
  NONCE_BYTES,
  prove,
} from "../../../../src/kv/transfer/gloo/keys.ts";
import { PROTOCOL_VERSION } from "../../../../src/kv/transfer/gloo/frame_stream.ts";
import { MAX_RECORD_BYTES, Sealer } from "../../../../src/kv/transfer/gloo/sealed_channel.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";

export const PREAMBLE_BYTES = 8 + NONCE_BYTES;
const HEADER_BYTES = 8;
const [HELLO, WELCOME] = [0, 1];

/** What a rogue that opens a connection says first. */
export function helloOf(isSealed = false) {
  const from = { instanceId: "i9", model: "m", layout: suiteLayout };
  return { generation: 1, rank: 1, from, to: "i0", isSealed } as Record<string, unknown>;
}

export function preamble(nonce = makeNonce()): Uint8Array<ArrayBuffer> {
  return new Uint8Array([...new TextEncoder().encode("LLMNXKV"), PROTOCOL_VERSION, ...nonce]);
}

export function frame(type: number, data: unknown): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(JSON.stringify(data));
  const bytes = new Uint8Array(HEADER_BYTES + json.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, json.length, true);
  bytes.set(json, HEADER_BYTES);
  return bytes;
}

/** Writes all; errors of a connection that the other end has closed are no concern of a rogue. */
export async function sendAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  try {
    for (let sent = 0; sent < bytes.length;) sent += await conn.write(bytes.subarray(sent));
  } catch {
    // The other end has had enough.
  }
}

/** Reads exactly so many bytes; null at the end of the stream. */
export async function readExactly(conn: Deno.Conn, count: number): Promise<Uint8Array | null> {
  const bytes = new Uint8Array(count);
  for (let filled = 0; filled < count;) {
    const got = await conn.read(bytes.subarray(filled)).catch(() => null);
    if (got === null) return null;
    filled += got;
  }
  return bytes;
}

async function readFrame(conn: Deno.Conn): Promise<{ type: number; data: unknown } | null> {
  const header = await readExactly(conn, HEADER_BYTES);
  if (header === null) return null;
  const view = new DataView(header.buffer);
  const json = await readExactly(conn, view.getUint32(4, true));
  const data = json && JSON.parse(new TextDecoder().decode(json));
  return { type: view.getUint32(0, true), data };
}

/** One end of a connection after the greetings. */
export class Rogue {
  readonly #sealer: Sealer | null;

  private constructor(readonly conn: Deno.Conn, key: Uint8Array | null) {
    this.#sealer = key && new Sealer(key);
  }

  /** Connects as a member. Null if it was not welcome. */
  static async dial(
    port: number,
    secret: string,
    hello: Record<string, unknown>,
  ): Promise<Rogue | null> {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    const nonce = makeNonce();
    await sendAll(conn, preamble(nonce));
    const theirs = await readExactly(conn, PREAMBLE_BYTES);
    if (theirs !== null) {
      const keys = connectionKeys(secret, { dialer: nonce, listener: theirs.subarray(8) });
      const statement = JSON.stringify(hello);
      await sendAll(conn, frame(HELLO, { statement, proof: prove(keys, "dialer", statement) }));
      const answer = await readFrame(conn);
      if (answer?.type === WELCOME) return new Rogue(conn, hello.isSealed ? keys.fromDialer : null);
    }
    conn.close();
    return null;
  }

  /** Answers one that connects. Null if it goes before it greets. */
  static async answer(
    conn: Deno.Conn,
    secret: string,
    welcome: (right: unknown) => unknown = (right) => right,
  ): Promise<Rogue | null> {
    const nonce = makeNonce();
    await sendAll(conn, preamble(nonce));
    const theirs = await readExactly(conn, PREAMBLE_BYTES);
    const hello = theirs && await readFrame(conn);
    if (!hello) return null;
    const { statement } = hello.data as { statement: string };
    const keys: ConnectionKeys = connectionKeys(secret, {
      dialer: theirs!.subarray(8),
      listener: nonce,
    });
    await sendAll(conn, frame(WELCOME, welcome({ proof: prove(keys, "listener", statement) })));
    return new Rogue(conn, JSON.parse(statement).isSealed ? keys.fromListener : null);
  }

  async send(bytes: Uint8Array): Promise<void> {
    if (this.#sealer === null) return await sendAll(this.conn, bytes);
    for (let at = 0; at < bytes.length; at += MAX_RECORD_BYTES) {
      await sendAll(this.conn, this.#sealer.seal(bytes.subarray(at, at + MAX_RECORD_BYTES)));
    }
  }

  /** Reads until the other end closes. */
  async untilClosed(): Promise<void> {
    while (await this.conn.read(new Uint8Array(4096)).catch(() => null) !== null);
    this.conn.close();
  }
}
