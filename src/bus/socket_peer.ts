import { realClock } from "../core/clock.ts";
import { MessageError } from "../core/errors.ts";
import { BasePeer } from "./base_peer.ts";
import type { BusLimits } from "./bus.ts";
import { encodeHead, type FrameReader, maxHeadBytes } from "./frame_codec.ts";
import { type Frame, frameSize } from "./outbox.ts";
import type { Protocol } from "./protocol.ts";
import type { AnyService } from "./transport.ts";

/** Frames that fit share this buffer and a write; four full shared frames, or many small ones. */
const WRITE_BUFFER_BYTES = 128 << 10;
/** Size of the write buffer at first: it grows when more is written at once. */
const FIRST_BUFFER_BYTES = 4 << 10;
/** Payloads up to this size are copied behind their head to save a write. */
const MAX_COPIED_PAYLOAD_BYTES = 16 << 10;
/** How long a closing end waits for the other to take the last bytes and to close as well. */
const LINGER_MS = 2_000;

/** One end of a Unix or TCP connection, after the greetings. */
export class SocketPeer extends BasePeer {
  override readonly localHost: string | null;
  #pumping: Promise<void> | null = null;
  #reading: Promise<void>;
  #unwrittenBytes = 0;
  #writeBuffer = new Uint8Array(FIRST_BUFFER_BYTES);
  #isConnOpen = true;

  constructor(
    private readonly conn: Deno.Conn,
    /** May hold bytes that came behind the greeting. */
    private readonly reader: FrameReader,
    remote: string,
    service: AnyService,
    limits: BusLimits,
    protocol: Protocol,
    override readonly pid: number | null,
  ) {
    super(remote, service, limits, realClock, protocol);
    const { localAddr } = conn;
    this.localHost = "hostname" in localAddr ? localAddr.hostname : null; // TLS names no transport
    reader.maxFrameBytes = limits.maxFrameBytes;
    this.#reading = Promise.resolve().then(() => this.#read()); // after `onConnect`
  }

  protected override wake(): void {
    if (!this.outbox.isEmpty) this.#pumping ??= this.#pump();
  }

  protected override async drain(): Promise<void> {
    const linger = setTimeout(() => this.#closeConn(), LINGER_MS);
    this.wake();
    await this.#pumping;
    // Closing with unread input would reset the connection and could destroy what was just sent:
    // say that we are done, and read until the other end is.
    await this.conn.closeWrite().catch(() => {});
    await this.#reading;
    clearTimeout(linger);
    this.#closeConn();
  }

  protected override async abandon(): Promise<void> {
    this.#closeConn();
    await Promise.all([this.#pumping, this.#reading]);
  }

  #closeConn(): void {
    if (!this.#isConnOpen) return;
    this.#isConnOpen = false;
    this.conn.close();
  }

  /** Writes until the outbox is empty. Whatever is pushed meanwhile shares the next write. */
  async #pump(): Promise<void> {
    try {
      let frames = this.outbox.takeAll();
      while (frames.length > 0) {
        await this.#writeFrames(frames);
        frames = this.outbox.takeAll();
      }
    } catch (error) {
      this.fail(`the connection broke: ${(error as Error).message}`);
    } finally {
      this.#pumping = null;
    }
  }

  async #writeFrames(frames: readonly Frame[]): Promise<void> {
    let buffer = this.#writeBuffer;
    let used = 0;
    for (const frame of frames) {
      const headBytes = maxHeadBytes(frame);
      const copiedBytes = headBytes +
        Math.min(frame.payload?.length ?? 0, MAX_COPIED_PAYLOAD_BYTES);
      if (used + copiedBytes > buffer.length && this.#writeBuffer.length < WRITE_BUFFER_BYTES) {
        this.#writeBuffer = new Uint8Array(WRITE_BUFFER_BYTES);
        this.#writeBuffer.set(buffer.subarray(0, used));
        buffer = this.#writeBuffer;
      }
      if (used + headBytes > buffer.length) {
        await this.#writeAll(buffer.subarray(0, used));
        used = 0;
        buffer = headBytes > WRITE_BUFFER_BYTES ? new Uint8Array(headBytes) : this.#writeBuffer;
      }
      used = encodeHead(frame, buffer, used);
      this.#unwrittenBytes += frameSize(frame);
      const { payload } = frame;
      if (payload === null) continue;
      if (payload.length <= MAX_COPIED_PAYLOAD_BYTES && used + payload.length <= buffer.length) {
        buffer.set(payload, used);
        used += payload.length;
      } else {
        await this.#writeAll(buffer.subarray(0, used), payload);
        used = 0;
      }
    }
    await this.#writeAll(buffer.subarray(0, used));
  }

  /** Writes what completes the frames counted in `#unwrittenBytes`. */
  async #writeAll(...parts: Uint8Array[]): Promise<void> {
    for (const part of parts) {
      for (let sent = 0; sent < part.length;) {
        sent += await this.conn.write(sent === 0 ? part : part.subarray(sent));
      }
    }
    this.outbox.release(this.#unwrittenBytes);
    this.#unwrittenBytes = 0;
  }

  async #read(): Promise<void> {
    const { conn, reader } = this;
    try {
      for (;;) {
        for (let frame = reader.next(); frame !== null; frame = reader.next()) {
          this.receive(frame.json, frame.payload, frame.giveBack);
        }
        let bytes = await conn.read(reader.space());
        // A closing end drops what still comes.
        while (bytes !== null && !this.isOpen) bytes = await conn.read(reader.space());
        if (bytes === null) return this.remoteEnded();
        reader.advance(bytes);
      }
    } catch (error) {
      const { message } = error as Error;
      if (error instanceof MessageError) this.refuse(`the other end sent ${message}`);
      else this.fail(`the connection broke: ${message}`);
    }
  }
}
