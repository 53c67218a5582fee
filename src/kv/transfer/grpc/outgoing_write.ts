import type { Clock } from "../../../core/clock.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import { readRunsInto, runBytes } from "../../pool/copy_runs.ts";
import type { KvPool } from "../../pool/pool.ts";
import type { BlockTransfer } from "../backend.ts";
import type { HostSecurity } from "../backend_kind.ts";
import { pause, pauseMs, PIECE_BYTES } from "../pace.ts";
import { destinationBlocksOf, sourceRuns, type TransferRound } from "../rounds.ts";
import {
  blocksHeader,
  END_FLAG,
  HEADER_BYTES,
  readHeader,
  readReply,
  startEnvelope,
} from "./envelope.ts";
import { type HttpAnswer, HttpCall, type HttpTarget } from "./http_call.ts";
import { STREAM_TYPE, WRITE_PATH } from "./server.ts";

/** Two buffers of the host, each for the longest message: one is sent while the other is filled. */
export type MessageBuffers = readonly [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>];

export interface OutgoingWriteArgs {
  readonly from: InstanceId;
  readonly pool: KvPool;
  readonly clock: Clock;
  readonly target: HttpTarget;
  /** Of the migration group. */
  readonly secret: string;
  readonly security: HostSecurity | null;
  readonly buffers: MessageBuffers;
}

/**
 * Sends the rounds of a transfer in one call of Write, a message a round. When this settles, nothing reads
 * the pool or uses the buffers.
 * @param signal ends it; the caller aborts it at the deadline too
 * @throws {Error} the destination cannot be reached or refuses
 */
export async function writeRounds(
  args: OutgoingWriteArgs,
  rounds: readonly TransferRound[],
  transfer: BlockTransfer,
  signal: AbortSignal,
): Promise<void> {
  const { from, clock, target, secret, security } = args;
  const { migrationId, destination, deadlineMs } = transfer;
  const start = startEnvelope({ migrationId, from, to: destination.instanceId });
  const messages = rounds.map((round) => messageOf(args.pool, round));
  const length = messages.reduce((sum, { bytes }) => sum + bytes, start.length);
  const call = await HttpCall.open(
    target,
    WRITE_PATH,
    {
      "content-type": STREAM_TYPE,
      "content-length": String(length),
      "connect-protocol-version": "1",
      "connect-timeout-ms": String(Math.max(1, Math.ceil(deadlineMs - clock.nowMs()))),
      authorization: `Bearer ${secret}`,
    },
    signal,
    security,
  );
  try {
    let failure: unknown = null;
    try {
      await call.write(start);
      await writeMessages(call, messages, args, transfer, signal);
    } catch (error) {
      failure = error; // the destination may have refused, and then closed the connection
    }
    const answer = await call.answer.catch((error) => {
      throw failure ?? error;
    });
    const written = bytesWritten(answer);
    const sent = messages.reduce((sum, { bytes, header }) => sum + bytes - header.length, 0);
    if (written !== sent) throw new UnavailableError(`it wrote ${written} bytes of ${sent}`);
  } finally {
    call.close();
  }
}

interface OutgoingMessage {
  readonly round: TransferRound;
  readonly header: Uint8Array<ArrayBuffer>;
  /** With the header. */
  readonly bytes: number;
}

function messageOf(pool: KvPool, round: TransferRound): OutgoingMessage {
  const { firstLayer, numLayers } = round;
  const dataBytes = runBytes(pool, sourceRuns(round));
  const blocks = destinationBlocksOf(round);
  const header = blocksHeader({ blocks, firstLayer, numLayers }, dataBytes);
  return { round, header, bytes: header.length + dataBytes };
}

/** Reads the next message from the pool while one is under way. In the background it pauses. */
async function writeMessages(
  call: HttpCall,
  messages: readonly OutgoingMessage[],
  { pool, clock, buffers }: OutgoingWriteArgs,
  { isBackground = false, deadlineMs }: BlockTransfer,
  signal: AbortSignal,
): Promise<void> {
  let leftBytes = messages.reduce((sum, { bytes }) => sum + bytes, 0);
  let pieceBytes = 0, startMs = clock.nowMs();
  let writing = Promise.resolve();
  try {
    for (const [i, { round, header, bytes }] of messages.entries()) {
      if (call.isAnswered || signal.aborted) return;
      const message = buffers[i % 2].subarray(0, bytes);
      message.set(header);
      await readRunsInto(pool, sourceRuns(round), message.subarray(header.length));
      await writing;
      writing = call.write(message);
      writing.catch(() => {});
      leftBytes -= bytes;
      pieceBytes += bytes;
      if (!isBackground || pieceBytes < PIECE_BYTES) continue;
      await writing;
      const nowMs = clock.nowMs();
      const pieces = Math.ceil(leftBytes / pieceBytes);
      const leftMs = deadlineMs - nowMs;
      await pause(clock, pauseMs({ tookMs: nowMs - startMs, pieces, leftMs }), signal);
      pieceBytes = 0;
      startMs = clock.nowMs();
    }
  } finally {
    await writing;
  }
}

/**
 * Bytes of blocks that the destination has written, by its answer.
 * @throws {UnavailableError} it refused, or does not speak the protocol
 */
function bytesWritten({ status, body }: HttpAnswer): number {
  if (status !== 200) throw new UnavailableError(`it answered with HTTP status ${status}`);
  let written = NaN;
  for (let at = 0; at + HEADER_BYTES <= body.length;) {
    const { flags, bytes } = readHeader(body.subarray(at));
    const message = body.subarray(at + HEADER_BYTES, at += HEADER_BYTES + bytes);
    if (flags !== END_FLAG) written = Number(readReply(message).bytes);
    else {
      const error = errorOf(new TextDecoder().decode(message));
      if (error === null) return written;
      throw new UnavailableError(error);
    }
  }
  throw new UnavailableError("its answer is not one of the Connect protocol");
}

/** What the end of an answer says went wrong; null for nothing. */
function errorOf(json: string): string | null {
  try {
    const { error } = JSON.parse(json);
    return error === undefined ? null : String(error.message ?? error.code);
  } catch {
    return "its answer is not one of the Connect protocol";
  }
}
