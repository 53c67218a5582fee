/**
 * Messages of a call of Write on the wire. A Connect stream is a row of envelopes: a byte of flags, the
 * length of the message (u32, big-endian), the message. Blocks go in and come out as views of buffers:
 * the encoder of protobuf would copy each byte twice more.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { RequestError } from "../../../core/errors.ts";
import { type KvLayout, layerBytes } from "../../layout.ts";
import {
  type WriteReply,
  WriteReplySchema,
  type WriteRequest,
  WriteRequestSchema,
  type WriteStart,
} from "./migration_pb.ts";

export const HEADER_BYTES = 5;
/** Flag of the last envelope of an answer: JSON, with the error if there is one. */
export const END_FLAG = 2;
/** Bytes of blocks in a message, unless one layer of a block has more. */
const DATA_BYTES = 256 << 10;
/** Field `data`, of type bytes: `5 << 3 | 2`. */
const DATA_TAG = 0x2a;

/** Most bytes of blocks in a message, of both ends. */
export function maxDataBytes(layout: KvLayout): number {
  return Math.max(DATA_BYTES, layerBytes(layout));
}

/** Most bytes of a message: its blocks, and a list of as many blocks as a message can have. */
export function maxMessageBytes(layout: KvLayout, numBlocks: number): number {
  const mostBlocks = Math.min(numBlocks, Math.ceil(maxDataBytes(layout) / layerBytes(layout)));
  return maxDataBytes(layout) + 64 + 5 * mostBlocks;
}

/** The envelope of a whole message. */
export function envelope(message: Uint8Array<ArrayBuffer>, flags = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + message.length);
  writeHeader(bytes, flags, message.length);
  bytes.set(message, HEADER_BYTES);
  return bytes;
}

/** The first message of a call. */
export function startEnvelope(
  start: Pick<WriteStart, "migrationId" | "from" | "to">,
): Uint8Array<ArrayBuffer> {
  return envelope(toBinary(WriteRequestSchema, create(WriteRequestSchema, { start })));
}

/** What comes before the bytes of blocks in an envelope. */
export function blocksHeader(
  piece: Pick<WriteRequest, "blocks" | "firstLayer" | "numLayers">,
  dataBytes: number,
): Uint8Array<ArrayBuffer> {
  const fields = toBinary(WriteRequestSchema, create(WriteRequestSchema, piece));
  const length = varint(dataBytes);
  const messageBytes = fields.length + 1 + length.length;
  const bytes = new Uint8Array(HEADER_BYTES + messageBytes);
  writeHeader(bytes, 0, messageBytes + dataBytes);
  bytes.set(fields, HEADER_BYTES);
  bytes.set([DATA_TAG, ...length], HEADER_BYTES + fields.length);
  return bytes;
}

/** Flags and length of the message after a header. */
export function readHeader(header: Uint8Array): { readonly flags: number; readonly bytes: number } {
  const view = new DataView(header.buffer, header.byteOffset, HEADER_BYTES);
  return { flags: view.getUint8(0), bytes: view.getUint32(1) };
}

/**
 * The message; `data` is a view of `bytes`.
 * @throws {RequestError} it is none
 */
export function readMessage(bytes: Uint8Array): WriteRequest {
  try {
    return fromBinary(WriteRequestSchema, bytes);
  } catch (error) {
    throw new RequestError(`not a WriteRequest: ${(error as Error).message}`);
  }
}

/** @throws {Error} it is none */
export function readReply(bytes: Uint8Array): WriteReply {
  return fromBinary(WriteReplySchema, bytes);
}

function writeHeader(into: Uint8Array<ArrayBuffer>, flags: number, messageBytes: number): void {
  const view = new DataView(into.buffer, into.byteOffset);
  view.setUint8(0, flags);
  view.setUint32(1, messageBytes);
}

function varint(value: number): number[] {
  const bytes = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push(value % 0x80 | 0x80);
  return [...bytes, value];
}
