/**
 * Frames on a socket, after a preamble of 40 bytes in each direction:
 *
 *     "LLMNXKV" u8 version | nonce of 32 bytes
 *     u32 type | u32 bytes | JSON
 *
 * Integers are little-endian. The bytes of the blocks follow a `transfer` frame. Frames and blocks that
 * follow the greeting are sealed if the connection leaves the host ({@linkcode SealedChannel}).
 */
import type { Sockets } from "../../../../ffi/sockets.ts";
import { type Channel, ConnectionLost, PlainChannel } from "./channel.ts";
import { makeNonce, NONCE_BYTES } from "./keys.ts";
import { SealedChannel } from "./sealed_channel.ts";

export const PROTOCOL_VERSION = 2;
const MAGIC = new TextEncoder().encode("LLMNXKV");
const HEADER_BYTES = 8;
/** Longest frame of a peer before it is welcome. */
export const MAX_GREETING_BYTES = 64 << 10;
/** Longest frame: a `transfer` lists its blocks. */
export const MAX_FRAME_BYTES = 16 << 20;

const frameTypes = ["hello", "welcome", "refused", "transfer", "done", "failed"] as const;
export type FrameType = typeof frameTypes[number];

export interface TransferFrame {
  readonly type: FrameType;
  readonly data: unknown;
}

/** One end of a connection while it carries frames. It never reads beyond the end of a frame. */
export class FrameStream {
  readonly #sockets: Sockets;
  readonly #fd: number;
  #unsent: Uint8Array<ArrayBuffer>[] = [];
  #incoming = new Uint8Array(HEADER_BYTES);
  #filled = 0;
  #type: FrameType | null = null;
  #peerVersion: number | null = null;
  #peerNonce: Uint8Array | null = null;
  #channel: Channel;
  readonly nonce = makeNonce();

  constructor(sockets: Sockets, fd: number) {
    this.#sockets = sockets;
    this.#fd = fd;
    this.#channel = new PlainChannel(sockets, fd);
    this.#unsent.push(preamble(this.nonce));
  }

  /** For the bytes of blocks, between two frames. */
  get channel(): Channel {
    return this.#channel;
  }

  /** Of the other end; null until {@linkcode receive} has read it. */
  get peerNonce(): Uint8Array | null {
    return this.#peerNonce;
  }

  get hasUnsent(): boolean {
    return this.#unsent.length > 0 || this.#channel.hasUnsent;
  }

  /**
   * Seals what follows in both directions.
   * @throws {ConnectionLost} earlier bytes wait to be sent
   */
  seal(keys: { readonly sends: Uint8Array; readonly receives: Uint8Array }): void {
    if (this.hasUnsent) throw new ConnectionLost("the other end does not read the greeting");
    this.#channel = new SealedChannel(this.#sockets, this.#fd, keys);
  }

  send(type: FrameType, data: unknown): void {
    const json = new TextEncoder().encode(JSON.stringify(data));
    const frame = new Uint8Array(HEADER_BYTES + json.length);
    const view = new DataView(frame.buffer);
    view.setUint32(0, frameTypes.indexOf(type), true);
    view.setUint32(4, json.length, true);
    frame.set(json, HEADER_BYTES);
    this.#unsent.push(frame);
  }

  /** Writes as much as the socket takes now. */
  flush(): void {
    this.#channel.flush();
    while (this.#unsent.length > 0) {
      const [bytes] = this.#unsent;
      const written = this.#channel.write(bytes);
      if (written < 0) return;
      if (written === bytes.length) this.#unsent.shift();
      else this.#unsent[0] = bytes.subarray(written);
    }
  }

  /**
   * Reads available bytes, up to the end of the next frame.
   * @returns null while the frame is incomplete
   * @throws {ConnectionLost} the other end closed the connection, or does not speak this protocol
   */
  receive(maxFrameBytes: number): TransferFrame | null {
    while (this.#fill()) {
      if (this.#peerVersion === null) this.#readPreamble();
      else if (this.#peerNonce === null) this.#readNonce();
      else if (this.#type === null) this.#readHeader(maxFrameBytes);
      else {
        const frame = { type: this.#type, data: parse(this.#incoming) };
        this.#type = null;
        this.#expect(HEADER_BYTES);
        return frame;
      }
    }
    return null;
  }

  /** Whether all expected bytes have arrived. */
  #fill(): boolean {
    while (this.#filled < this.#incoming.length) {
      const bytes = this.#channel.read(this.#incoming.subarray(this.#filled));
      if (bytes === 0) throw new ConnectionLost("the other end closed the connection");
      if (bytes < 0) return false;
      this.#filled += bytes;
    }
    return true;
  }

  #expect(bytes: number): void {
    this.#incoming = new Uint8Array(bytes);
    this.#filled = 0;
  }

  #readPreamble(): void {
    if (MAGIC.some((byte, i) => this.#incoming[i] !== byte)) {
      throw new ConnectionLost("another service answers at this address");
    }
    this.#peerVersion = this.#incoming[MAGIC.length];
    if (this.#peerVersion !== PROTOCOL_VERSION) {
      throw new ConnectionLost(
        `the other end speaks version ${this.#peerVersion} of the transfer protocol, and this end ` +
          `version ${PROTOCOL_VERSION}: run the same release on both`,
      );
    }
    this.#expect(NONCE_BYTES);
  }

  #readNonce(): void {
    this.#peerNonce = this.#incoming;
    this.#expect(HEADER_BYTES);
  }

  #readHeader(maxFrameBytes: number): void {
    const view = new DataView(this.#incoming.buffer);
    const type = frameTypes.at(view.getUint32(0, true));
    const bytes = view.getUint32(4, true);
    if (type === undefined || bytes > maxFrameBytes) {
      throw new ConnectionLost(`the other end sent a frame of ${bytes} bytes that cannot be read`);
    }
    this.#type = type;
    this.#expect(bytes);
  }
}

function preamble(nonce: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array([...MAGIC, PROTOCOL_VERSION, ...nonce]);
}

function parse(json: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(json));
  } catch {
    throw new ConnectionLost("the other end sent a frame that is not JSON");
  }
}
