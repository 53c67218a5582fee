/** Peers of the gloo backend that say something else than they should. */
import assert from "node:assert/strict";
import type { Random } from "../../src/core/random.ts";
import { contents, fill } from "../conformance/kv_pool.ts";
import { helloOf, PREAMBLE_BYTES, Rogue, sendAll } from "../kv/transfer/gloo/rogue.ts";
import { form, type GlooEnd, membersOf, openEnd } from "../kv/transfer/gloo/support.ts";
import { concat, mutateBytes, mutateData, randomBytes } from "./mutate.ts";

const SECRET = "s";
const HEAD_BYTES = 8;
const DEADLINE_MS = 5_000;

/** What two members said, and the pieces of it that came after the greetings. */
interface Recording {
  readonly near: Uint8Array<ArrayBuffer>;
  readonly far: Uint8Array<ArrayBuffer>;
}

/** Two members of a group, and what was said as they moved blocks without encryption. */
export class GlooTarget implements AsyncDisposable {
  #generation = 1;

  private constructor(
    readonly a: GlooEnd,
    readonly b: GlooEnd,
    readonly isSealed: boolean,
    readonly recording: Recording,
  ) {}

  static async open(isSealed: boolean): Promise<GlooTarget> {
    const recording = await record();
    const a = await openEnd("i0", { initTimeoutMs: 300, isSealed });
    const b = await openEnd("i1", { initTimeoutMs: 300, isSealed });
    await fill(a.pool, 1);
    await form([a, b], 1, SECRET);
    const target = new GlooTarget(a, b, isSealed, recording);
    await target.checkMoves();
    return target;
  }

  get port(): number {
    return this.b.backend.endpoint.port;
  }

  /** Connects, with the secret or without, and says what a member has said, or not. */
  async attackListener(random: Random): Promise<void> {
    const { near } = this.recording;
    if (random.below(3) === 0) {
      const conn = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
      return await saidBy(conn, () => sendAll(conn, mutateStream(near, random)), random);
    }
    const right = { ...helloOf(this.isSealed), to: "i1" };
    const hello = random.below(4) === 0 ? mutateData(right, random) : right;
    const rogue = await Rogue.dial(this.port, SECRET, hello as Record<string, unknown>);
    if (rogue === null) return;
    const frames = concat(...mutatedFrames(near, random));
    await saidBy(rogue.conn, () => rogue.send(frames), random);
  }

  /** Is connected to, has the secret or not, and answers as a member has, or not. */
  async attackDialer(random: Random): Promise<void> {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const hasSecret = random.below(3) > 0, changesWelcome = random.below(4) === 0;
    const serving = (async () => {
      for await (const conn of listener) {
        if (!hasSecret) await sendAll(conn, mutateStream(this.recording.far, random));
        else {
          const welcome = (right: unknown) => changesWelcome ? mutateData(right, random) : right;
          const rogue = await Rogue.answer(conn, SECRET, welcome);
          await rogue?.send(concat(...mutatedFrames(this.recording.far, random)));
        }
        setTimeout(() => closeQuietly(conn), 5);
        readAll(conn);
      }
    })();
    const stranger = {
      instanceId: "i9",
      rank: 9,
      endpoint: { host: "127.0.0.1", port: listener.addr.port },
    };
    await this.a.backend.join({
      secret: SECRET,
      generation: ++this.#generation,
      members: [...membersOf([this.a, this.b]), stranger],
    });
    listener.close();
    await serving;
  }

  /** Blocks still move, and none was written that was not granted. */
  async checkMoves(): Promise<void> {
    await moveBlocks(this.a, this.b, `check-${this.#generation++}`);
    assert.ok(this.a.backend.isReady && this.b.backend.isReady);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.a.backend.close();
    await this.b.backend.close();
  }
}

/** What two members say as they move blocks. */
async function record(): Promise<Recording> {
  const a = await openEnd("i0"), b = await openEnd("i1");
  using proxy = new RecordingProxy(b.backend.endpoint.port);
  const [first, second] = membersOf([a, b]);
  const detour = { ...second, endpoint: { ...second.endpoint, port: proxy.port } };
  await Promise.all([
    a.backend.join({ secret: SECRET, generation: 1, members: [first, detour] }),
    b.backend.join({ secret: SECRET, generation: 1, members: [first, second] }),
  ]);
  await moveBlocks(a, b, "recorded");
  await a.backend.close();
  await b.backend.close();
  return { near: concat(...proxy.near), far: concat(...proxy.far) };
}

/** Says something and leaves a moment later, unless the other end closes before. */
async function saidBy(conn: Deno.Conn, say: () => Promise<void>, random: Random): Promise<void> {
  const reading = readAll(conn);
  await say();
  const timer = setTimeout(() => closeQuietly(conn), 3 + random.below(5));
  await reading;
  clearTimeout(timer);
  closeQuietly(conn);
}

async function moveBlocks(from: GlooEnd, to: GlooEnd, migrationId: string): Promise<void> {
  const blocks = [3, 4, 9];
  await fill(to.pool, 2);
  const before = await contents(to.pool);
  await to.backend.grant(migrationId, blocks);
  await from.backend.send({
    migrationId,
    destination: { instanceId: to.instanceId, address: "" },
    endpoint: {},
    sourceBlocks: blocks,
    destinationBlocks: blocks,
    deadlineMs: performance.timeOrigin + performance.now() + DEADLINE_MS,
  }, new AbortController().signal);
  await to.backend.revoke(migrationId);
  const wanted = await contents(from.pool);
  (await contents(to.pool)).forEach((block, i) => {
    assert.deepEqual(block, (blocks.includes(i) ? wanted : before)[i], `block ${i}`);
  });
}

/** A stream of the gloo protocol with something in it that should not be there. */
function mutateStream(stream: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer> {
  if (random.below(10) === 0) return randomBytes(random.below(300), random);
  if (random.below(3) === 0) return mutateBytes(stream, random);
  return concat(stream.slice(0, PREAMBLE_BYTES), ...mutated(framesOf(stream), random));
}

/** What followed the greeting in a stream, with something in it that should not be there. */
function mutatedFrames(stream: Uint8Array<ArrayBuffer>, random: Random) {
  return mutated(framesOf(stream).slice(1), random);
}

function mutated(frames: readonly Uint8Array<ArrayBuffer>[], random: Random) {
  const victim = random.below(frames.length);
  return frames.map((frame, i) => i === victim ? mutateFrame(frame, random) : frame);
}

/** Frame after frame, behind the preamble, and the bytes of blocks in one piece at the end. */
function framesOf(stream: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>[] {
  const frames: Uint8Array<ArrayBuffer>[] = [];
  for (let at = PREAMBLE_BYTES; at + HEAD_BYTES <= stream.length;) {
    const view = new DataView(stream.buffer, stream.byteOffset + at);
    const type = view.getUint32(0, true), bytes = view.getUint32(4, true);
    if (type > 5 || bytes > stream.length - at) {
      frames.push(stream.slice(at));
      break;
    }
    frames.push(stream.slice(at, at + HEAD_BYTES + bytes));
    at += HEAD_BYTES + bytes;
  }
  return frames;
}

function mutateFrame(frame: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer> {
  let data;
  try {
    data = JSON.parse(new TextDecoder().decode(frame.subarray(HEAD_BYTES)));
  } catch {
    return mutateBytes(frame, random); // of blocks
  }
  const json = new TextEncoder().encode(JSON.stringify(mutateData(data, random)));
  const changed = concat(frame.subarray(0, HEAD_BYTES), json);
  const view = new DataView(changed.buffer);
  view.setUint32(4, json.length, true);
  if (random.below(4) === 0) view.setUint32(0, random.below(8), true);
  return changed;
}

class RecordingProxy implements Disposable {
  readonly near: Uint8Array[] = [];
  readonly far: Uint8Array[] = [];
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });

  constructor(targetPort: number) {
    (async () => {
      for await (const near of this.#listener) {
        const far = await Deno.connect({ hostname: "127.0.0.1", port: targetPort });
        pipe(near, far, this.near);
        pipe(far, near, this.far);
      }
    })();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  /** The connection goes on. */
  [Symbol.dispose](): void {
    this.#listener.close();
  }
}

async function pipe(from: Deno.Conn, to: Deno.Conn, copy: Uint8Array[]): Promise<void> {
  const buffer = new Uint8Array(64 << 10);
  try {
    for (let count; (count = await from.read(buffer)) !== null;) {
      copy.push(buffer.slice(0, count));
      for (let sent = 0; sent < count;) sent += await to.write(buffer.subarray(sent, count));
    }
  } catch {
    // One end is gone.
  }
  closeQuietly(to);
}

async function readAll(conn: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(4096);
  try {
    while (await conn.read(buffer) !== null);
  } catch {
    // Reset, or closed.
  }
}

function closeQuietly(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // It is closed already.
  }
}
