import type { Clock } from "../../../core/clock.ts";
import { RequestError, UnavailableError } from "../../../core/errors.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import { runBytes, writeRuns } from "../../pool/copy_runs.ts";
import type { KvPool } from "../../pool/pool.ts";
import type { WriteGrants } from "../write_grants.ts";
import { BodyReader } from "./body_reader.ts";
import { HEADER_BYTES, maxMessageBytes, readHeader, readMessage } from "./envelope.ts";
import type { WriteRequest } from "./migration_pb.ts";

/** Most calls of Write at a time. */
const MAX_OPEN = 64;
/** Most time for a call, also if it names none. */
const MAX_TIMEOUT_MS = 600_000;

export interface IncomingWritesArgs {
  readonly instanceId: InstanceId;
  readonly pool: KvPool;
  readonly grants: WriteGrants;
  readonly clock: Clock;
}

/** A call of Write under way. */
interface Incoming {
  /** Null until its first message has come. */
  migrationId: MigrationId | null;
  /** Why it was ended. */
  reason: Error | null;
  readonly reader: BodyReader;
  /** The last write to the pool, which takes time on a device. */
  write: Promise<void>;
}

/** The receiving end: writes what calls of Write bring into the pool, as far as it is granted. */
export class IncomingWrites {
  readonly #args: IncomingWritesArgs;
  readonly #open = new Set<Incoming>();
  #numDone = 0;
  #numFailed = 0;
  #bytes = 0;
  #isClosed = false;

  constructor(args: IncomingWritesArgs) {
    this.#args = args;
  }

  get statistics() {
    return {
      writesReceived: BigInt(this.#numDone),
      writesFailed: BigInt(this.#numFailed),
      writesOpen: this.#open.size,
      bytesReceived: BigInt(this.#bytes),
    };
  }

  /**
   * Receives the stream of one call.
   * @returns bytes of blocks that were written
   * @throws {UnavailableError} the migration may not write these blocks, or no longer
   * @throws {RequestError} not a stream of the protocol
   */
  async receive({ body, headers }: Request): Promise<number> {
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
    if (this.#open.size >= MAX_OPEN) {
      throw new UnavailableError(`${MAX_OPEN} transfers write to this instance already`);
    }
    if (body === null) throw new RequestError("Write has no body");
    const reader = new BodyReader(body, headers.has("content-length"));
    const incoming: Incoming = {
      migrationId: null,
      reason: null,
      reader,
      write: Promise.resolve(),
    };
    this.#open.add(incoming);
    const cancelTimer = this.#args.clock.after(
      timeoutOf(headers),
      () => stop(incoming, new UnavailableError("the transfer's deadline has passed")),
    );
    try {
      const bytes = await this.#receiveAll(incoming);
      this.#numDone++;
      return bytes;
    } catch (error) {
      this.#numFailed++;
      throw incoming.reason ?? error;
    } finally {
      cancelTimer();
      await incoming.write.catch(() => {});
      this.#open.delete(incoming);
      reader.cancel();
    }
  }

  /** Ends the migration's calls. Resolves when none writes. The grants were revoked before. */
  async revoke(migrationId: MigrationId): Promise<void> {
    const found = [...this.#open].filter((one) => one.migrationId === migrationId);
    await end(found, new UnavailableError(`migration ${migrationId} was revoked`));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await end([...this.#open], new UnavailableError("the migration backend is closed"));
  }

  async #receiveAll(incoming: Incoming): Promise<number> {
    const { pool: { layout, numBlocks } } = this.#args;
    const maxBytes = maxMessageBytes(layout, numBlocks);
    // Two, so that the next message is received while a device takes one.
    const buffers = [0, 1].map(() => new ArrayBuffer(maxBytes + HEADER_BYTES));
    const fill = async (which: number, least: number, most: number) => {
      const filled = await incoming.reader.read(buffers[which], most);
      buffers[which] = filled.buffer;
      if (incoming.reason !== null) throw incoming.reason;
      if (filled.bytes === least || filled.bytes === most) return filled.bytes;
      throw new UnavailableError("the transfer broke off");
    };
    let bytes = 0, which = 0;
    let isMore = await fill(1, 0, HEADER_BYTES) === HEADER_BYTES;
    let header = new Uint8Array(buffers[1], 0, HEADER_BYTES);
    while (isMore) {
      const { flags, bytes: length } = readHeader(header);
      if (flags !== 0) throw new RequestError("messages of Write must not be compressed");
      if (length > maxBytes) throw new RequestError(`a message of more than ${maxBytes} bytes`);
      // With the header of the next message, which saves a read of five bytes.
      isMore = await fill(which, length, length + HEADER_BYTES) > length;
      const message = readMessage(new Uint8Array(buffers[which], 0, length));
      // Another buffer may take the place of this one at the next read.
      header = new Uint8Array(buffers[which], length, isMore ? HEADER_BYTES : 0).slice();
      if (incoming.migrationId === null) this.#begin(incoming, message);
      else bytes += await this.#write(incoming, message);
      which = 1 - which;
    }
    if (incoming.migrationId === null) throw new RequestError("Write has no message");
    await incoming.write;
    return bytes;
  }

  #begin(incoming: Incoming, { start }: WriteRequest): void {
    if (start === undefined) throw new RequestError("the first message of Write has no start");
    const { instanceId, grants } = this.#args;
    if (start.to !== instanceId) {
      throw new UnavailableError(`${instanceId} listens where ${start.to} was expected`);
    }
    grants.check(start.migrationId, []);
    incoming.migrationId = start.migrationId;
  }

  /** Starts the write of a message when the one before is done. Returns its bytes. */
  async #write(incoming: Incoming, message: WriteRequest): Promise<number> {
    const { pool, grants } = this.#args;
    const { blocks, firstLayer, numLayers } = message;
    const data = message.data as Uint8Array<ArrayBuffer>;
    const runs = blocks.map((block) => ({ block, firstLayer, numLayers }));
    const expected = bytesOf(pool, runs);
    if (data.length !== expected) {
      throw new RequestError(`${data.length} bytes for ${blocks.length} blocks of ${expected}`);
    }
    await incoming.write;
    if (incoming.reason !== null) throw incoming.reason;
    grants.check(incoming.migrationId!, blocks);
    incoming.write = writeRuns(pool, runs, data);
    incoming.write.catch(() => {});
    this.#bytes += expected;
    return expected;
  }
}

function bytesOf(pool: KvPool, runs: Parameters<typeof runBytes>[1]): number {
  try {
    return runBytes(pool, runs);
  } catch (error) {
    throw new RequestError((error as Error).message);
  }
}

function timeoutOf(headers: Headers): number {
  const named = headers.get("connect-timeout-ms") ?? "";
  return Math.min(/^\d{1,10}$/.test(named) ? Number(named) : Infinity, MAX_TIMEOUT_MS);
}

function stop(incoming: Incoming, reason: Error): void {
  incoming.reason ??= reason;
  incoming.reader.cancel();
}

async function end(found: readonly Incoming[], reason: Error): Promise<void> {
  for (const incoming of found) stop(incoming, reason);
  await Promise.allSettled(found.map(({ write }) => write));
}
