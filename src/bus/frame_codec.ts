/**
 * Frames on a byte stream:
 *
 *     u32 json bytes | u32 payload bytes, or 0xffffffff for none | json | payload
 *
 * Integers are little-endian; the JSON is the array of the frame's records in UTF-8.
 */
import { MessageError } from "../core/errors.ts";
import { checkJsonShape, MAX_UNCHECKED_JSON_BYTES } from "./json_shape.ts";
import type { Frame } from "./outbox.ts";

const HEADER_BYTES = 8;
const NO_PAYLOAD = 0xffffffff;
/** A busy connection reads so much at a time. */
const READ_BUFFER_BYTES = 256 << 10;
/** Until a connection is busy: a manager has one for each of some thousand instances. */
const FIRST_BUFFER_BYTES = 16 << 10;
/** A frame gets a buffer of this size at once if its header says so; a larger one grows as bytes arrive. */
const MAX_PROMISED_BYTES = 4 << 20;
/** Buffers of frames are multiples of this, so that one that was given back fits frames of about its size. */
const BUFFER_UNIT_BYTES = 64 << 10;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

const encoder = new TextEncoder();
/** Puts U+FFFD in the place of what is not UTF-8. Takes half the time of a decoder that throws. */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const fatalDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const REPLACEMENT = "\uFFFD";

/** Bytes of buffer that {@linkcode encodeHead} may need. */
export function maxHeadBytes(frame: Frame): number {
  return HEADER_BYTES + 2 + frame.text.length * 3;
}

/** Writes everything but the payload's bytes at `offset`; returns the offset behind it. */
export function encodeHead(frame: Frame, buffer: Uint8Array, offset: number): number {
  const start = offset + HEADER_BYTES;
  buffer[start] = OPEN_BRACKET;
  const end = start + 1 + encoder.encodeInto(frame.text, buffer.subarray(start + 1)).written;
  buffer[end] = CLOSE_BRACKET;
  writeUint32(buffer, offset, end + 1 - start);
  writeUint32(buffer, offset + 4, frame.payload?.length ?? NO_PAYLOAD);
  return end + 1;
}

/** A frame as received. The payload is the receiver's to keep. */
export interface ReceivedFrame {
  readonly json: string;
  readonly payload: Uint8Array<ArrayBuffer> | null;
  /** The receiver keeps the payload no longer: its buffer serves another frame. */
  readonly giveBack?: () => void;
}

/**
 * Cuts a byte stream into frames. Fill {@linkcode space}, tell {@linkcode advance} how much was
 * filled, then take frames with {@linkcode next} until it returns null. A frame larger than the
 * shared buffer gets a buffer of its own, into which the rest of it is read directly.
 *
 * Memory grows with the bytes that arrive, not with what a header promises: beyond
 * {@linkcode MAX_PROMISED_BYTES} a buffer is at most twice as large as the bytes in it.
 */
export class FrameReader {
  #shared = new Uint8Array(FIRST_BUFFER_BYTES);
  #buffer = this.#shared;
  #start = 0;
  #end = 0;
  /** Was a frame's own, and was given back. At most {@linkcode MAX_PROMISED_BYTES}. */
  #spare: ArrayBuffer | null = null;

  /** @param maxFrameBytes largest JSON and payload together; may change between frames */
  constructor(public maxFrameBytes: number) {}

  space(): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(this.#end);
  }

  advance(bytes: number): void {
    this.#end += bytes;
  }

  /** @throws {MessageError} the stream is not made of frames within the limit */
  next(): ReceivedFrame | null {
    const buffer = this.#buffer, start = this.#start;
    if (this.#end - start < HEADER_BYTES) return this.#makeSpace(HEADER_BYTES);
    const jsonBytes = readUint32(buffer, start);
    const payloadField = readUint32(buffer, start + 4);
    const payloadBytes = payloadField === NO_PAYLOAD ? 0 : payloadField;
    if (jsonBytes + payloadBytes > this.maxFrameBytes) {
      throw new MessageError(
        `a frame of ${jsonBytes + payloadBytes} bytes is over the limit of ${this.maxFrameBytes}`,
      );
    }
    const jsonEnd = start + HEADER_BYTES + jsonBytes;
    const end = jsonEnd + payloadBytes;
    if (end > this.#end) return this.#makeSpace(end - start);
    const jsonText = buffer.subarray(start + HEADER_BYTES, jsonEnd);
    if (jsonBytes > MAX_UNCHECKED_JSON_BYTES) checkJsonShape(jsonText);
    const json = this.#decode(jsonText);
    const isShared = buffer === this.#shared;
    let payload = null;
    if (payloadField !== NO_PAYLOAD) {
      payload = isShared ? buffer.slice(jsonEnd, end) : buffer.subarray(jsonEnd, end);
    }
    if (isShared) {
      this.#start = end;
      return { json, payload };
    }
    this.#reset(this.#shared, 0);
    let own: ArrayBuffer | null = buffer.buffer;
    const giveBack = () => {
      if (own !== null && own.byteLength <= MAX_PROMISED_BYTES) this.#spare = own;
      own = null; // given back twice, it would serve two frames
    };
    return { json, payload, giveBack };
  }

  /** A buffer for one frame. It may hold anything. */
  #ownBuffer(byteLength: number): Uint8Array<ArrayBuffer> {
    const spare = this.#spare;
    if (spare !== null && spare.byteLength >= byteLength) {
      this.#spare = null;
      return new Uint8Array(spare, 0, byteLength);
    }
    const units = Math.ceil(byteLength / BUFFER_UNIT_BYTES);
    return new Uint8Array(units * BUFFER_UNIT_BYTES).subarray(0, byteLength);
  }

  #decode(json: Uint8Array): string {
    const text = decoder.decode(json);
    if (!text.includes(REPLACEMENT)) return text;
    try {
      return fatalDecoder.decode(json); // the character itself may have been sent
    } catch {
      throw new MessageError("a frame that is not UTF-8");
    }
  }

  /** Makes room for a frame of `frameBytes` that has begun. */
  #makeSpace(frameBytes: number): null {
    const begun = this.#buffer.subarray(this.#start, this.#end);
    const isFirst = this.#buffer === this.#shared && this.#shared.length < READ_BUFFER_BYTES;
    // A read that fills the buffer may have left more behind.
    const isTooSmall = this.#end === this.#buffer.length || frameBytes > this.#buffer.length;
    if (isFirst && isTooSmall && frameBytes <= READ_BUFFER_BYTES) {
      this.#shared = new Uint8Array(READ_BUFFER_BYTES);
      this.#shared.set(begun);
      this.#reset(this.#shared, begun.length);
    } else if (frameBytes > this.#buffer.length) {
      if (this.#end < this.#buffer.length && this.#buffer !== this.#shared) return null;
      const own = this.#ownBuffer(
        Math.min(frameBytes, Math.max(2 * begun.length, MAX_PROMISED_BYTES)),
      );
      own.set(begun);
      this.#reset(own, begun.length);
    } else if (this.#start + frameBytes > this.#buffer.length || begun.length === 0) {
      this.#buffer.set(begun);
      this.#reset(this.#buffer, begun.length);
    }
    return null;
  }

  #reset(buffer: Uint8Array<ArrayBuffer>, filled: number): void {
    this.#buffer = buffer;
    this.#start = 0;
    this.#end = filled;
  }
}

function writeUint32(buffer: Uint8Array, offset: number, value: number): void {
  buffer[offset] = value;
  buffer[offset + 1] = value >>> 8;
  buffer[offset + 2] = value >>> 16;
  buffer[offset + 3] = value >>> 24;
}

function readUint32(buffer: Uint8Array, offset: number): number {
  return (buffer[offset] | buffer[offset + 1] << 8 | buffer[offset + 2] << 16 |
    buffer[offset + 3] << 24) >>> 0;
}
