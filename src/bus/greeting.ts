/**
 * What either end of a socket says before anything else, so that two releases that do not understand
 * each other find out at once. It is a frame of its own: `["llumnix", VERSION]`.
 */
import { UnavailableError } from "../core/errors.ts";
import { encodeHead, type FrameReader, maxHeadBytes } from "./frame_codec.ts";

/** Largest frame of a peer that has not greeted. */
export const MAX_GREETING_BYTES = 4 << 10;
const NAME = "llumnix";

/**
 * Greets as the end that connected.
 * @throws {UnavailableError} the other end speaks another version, or another protocol
 * @throws {Error} the connection ended
 */
export async function greetFirst(
  conn: Deno.Conn,
  reader: FrameReader,
  version: number,
): Promise<void> {
  await sendGreeting(conn, version);
  checkVersion(await readGreeting(conn, reader), version);
}

/**
 * Greets as the end that was connected to. Other versions are greeted too: the other end refuses the
 * connection as well, and names both versions to its user.
 * @throws {UnavailableError} as {@linkcode greetFirst}
 */
export async function greetBack(
  conn: Deno.Conn,
  reader: FrameReader,
  version: number,
): Promise<void> {
  const theirs = await readGreeting(conn, reader);
  await sendGreeting(conn, version);
  checkVersion(theirs, version);
}

function checkVersion(theirs: number | null, ours: number): void {
  if (theirs === ours) return;
  const what = theirs === null
    ? "the bus protocol of a release before version 1"
    : `version ${theirs} of the bus protocol`;
  throw new UnavailableError(
    `the other end speaks ${what}, and this end version ${ours}: run the same release of llumnix at ` +
      "both ends",
  );
}

function sendGreeting(conn: Deno.Conn, version: number): Promise<void> {
  return sendFrame(conn, [NAME, version]);
}

/** Sends a frame of words, before a connection carries records. */
export async function sendFrame(conn: Deno.Conn, words: readonly unknown[]): Promise<void> {
  const frame = { text: JSON.stringify(words).slice(1, -1), payload: null };
  const buffer = new Uint8Array(maxHeadBytes(frame));
  const bytes = buffer.subarray(0, encodeHead(frame, buffer, 0));
  for (let sent = 0; sent < bytes.length;) sent += await conn.write(bytes.subarray(sent));
}

/**
 * The version that the other end speaks; null for the releases that had none, whose first frame is
 * the list of its records.
 */
async function readGreeting(conn: Deno.Conn, reader: FrameReader): Promise<number | null> {
  return versionIn(await readFrame(conn, reader));
}

/**
 * Reads a frame of words, before a connection carries records; empty where it is something else.
 * @throws {Error} the connection ended
 */
export async function readFrame(
  conn: Deno.Conn,
  reader: FrameReader,
): Promise<readonly unknown[]> {
  for (;;) {
    const frame = reader.next();
    if (frame !== null) {
      const words = parse(frame.json);
      return Array.isArray(words) ? words : [];
    }
    const bytes = await conn.read(reader.space());
    if (bytes === null) throw new Error("the other end closed before it greeted");
    reader.advance(bytes);
  }
}

function versionIn([name, version]: readonly unknown[]): number | null {
  if (name === NAME && Number.isSafeInteger(version)) return version as number;
  if (Array.isArray(name)) return null;
  throw new UnavailableError("another service answers there");
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}
