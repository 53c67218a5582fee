/** Peers of the gloo backend that say something else than they should. */
import assert from "node:assert/strict";
import type { Random } from "../../src/core/random.ts";
import { contents, fill } from "../conformance/kv_pool.ts";
import { type GlooEnd, membersOf, openEnd } from "../kv/transfer/gloo/support.ts";
import { concat, mutateBytes, mutateData, randomBytes } from "./mutate.ts";

const SECRET = "s";
const HEAD_BYTES = 8;
const DEADLINE_MS = 5_000;

/** The bytes of one direction of a connection. */
interface Recording {
  readonly near: Uint8Array<ArrayBuffer>;
  readonly far: Uint8Array<ArrayBuffer>;
}

/** Two members of a group, and what was said as they moved blocks. */
export class GlooTarget implements AsyncDisposable {
  #generation = 1;

  private constructor(
    readonly a: GlooEnd,
    readonly b: GlooEnd,
    readonly recording: Recording,
  ) {}

  static async open(): Promise<GlooTarget> {
    const a = await openEnd("i0", { initTimeoutMs: 300 }), b = await openEnd("i1");
    await fill(a.pool, 1);
    using proxy = new RecordingProxy(b.backend.endpoint.port);
    const [first, second] = membersOf([a, b]);
    const detour = { ...second, endpoint: { ...second.endpoint, port: proxy.port } };
    await Promise.all([
      a.backend.join({ secret: SECRET, generation: 1, members: [first, detour] }),
      b.backend.join({ secret: SECRET, generation: 1, members: [first, second] }),
    ]);
    await moveBlocks(a, b, "recorded");
    return new GlooTarget(a, b, { near: concat(...proxy.near), far: concat(...proxy.far) });
  }

  get port(): number {
    return this.b.backend.endpoint.port;
  }

  /** Connects as a member, and says what a member has said, or not. */
  async attackListener(random: Random): Promise<void> {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
    const reading = readAll(conn);
    await conn.write(mutateStream(this.recording.near, random)).catch(() => {});
    const timer = setTimeout(() => conn.close(), 3 + random.below(5));
    await reading;
    clearTimeout(timer);
    closeQuietly(conn);
  }

  /** Is connected to as a member, and answers as a member has, or not. */
  async attackDialer(random: Random): Promise<void> {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const bytes = mutateStream(this.recording.far, random);
    const serving = (async () => {
      for await (const conn of listener) {
        readAll(conn);
        await conn.write(bytes).catch(() => {});
        setTimeout(() => closeQuietly(conn), 5);
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
  const [preamble, ...frames] = framesOf(stream);
  const victim = random.below(frames.length);
  const changed = frames.map((frame, i) => i === victim ? mutateFrame(frame, random) : frame);
  return concat(preamble, ...changed);
}

/** The preamble, frame after frame, and the bytes of blocks in one piece at the end. */
function framesOf(stream: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>[] {
  const frames = [stream.slice(0, HEAD_BYTES)];
  for (let at = HEAD_BYTES; at + HEAD_BYTES <= stream.length;) {
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
