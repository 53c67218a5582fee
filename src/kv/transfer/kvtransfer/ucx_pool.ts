import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import type { UcxRequest } from "../../../../ffi/ucx/calls.ts";
import type { UcxContext, UcxMemory } from "../../../../ffi/ucx/context.ts";
import type { RemoteKey, UcxEndpoint } from "../../../../ffi/ucx/endpoint.ts";
import { Ucx } from "../../../../ffi/ucx/ucx.ts";
import type { UcxWorker } from "../../../../ffi/ucx/worker.ts";
import { UnavailableError } from "../../../core/errors.ts";
import { blockBytes, type KvLayout } from "../../layout.ts";

/** How other hosts reach a pool by UCX, in hexadecimal. */
export interface UcxName {
  /** Of the worker: about 200 bytes. */
  readonly workerAddress: string;
  /** Of the pool's memory. */
  readonly key: string;
}

/** The pool of another process, by UCX. */
export interface UcxSource extends UcxName {
  readonly generation: string;
  /** Of block 0 in its process. */
  readonly address: bigint;
}

/** Bytes that come into this pool by one get. */
export interface UcxPiece {
  readonly sourceOffset: number;
  readonly destinationOffset: number;
  readonly byteLength: number;
}

/** Used by one read at a time, so that its end takes no other read with it. */
interface Connection {
  readonly generation: string;
  readonly endpoint: UcxEndpoint;
  readonly key: RemoteKey;
}

/** Turns without an event after which the thread sleeps between them. */
const BUSY_TURNS = 100;
const IDLE_MS = 1;
/** Connections that are kept for the next read. */
const MAX_IDLE = 64;

/**
 * This process's pool as UCX knows it. The destination reads (gets) rather than the source writing (puts),
 * as within a host: then the destination can end a transfer by itself. It closes its endpoint, and UCX
 * writes nothing for the requests of a closed endpoint. That holds for endpoints with error handling
 * (`errors: "peer"`), which give their requests numbers that end with them.
 *
 * Belongs to one thread. UCX makes progress only when it is called, at the source too: for transports
 * without remote reads, such as TCP, the source's thread sends what the destination asks for.
 */
export class UcxPool {
  readonly name: UcxName;
  readonly #context: UcxContext;
  readonly #worker: UcxWorker;
  readonly #memory: UcxMemory;
  readonly #address: bigint;
  /** The one that was used last is last. */
  readonly #idle: Connection[] = [];
  #numServed = 0;
  #isServing = false;

  private constructor(context: UcxContext, worker: UcxWorker, memory: UcxMemory, address: bigint) {
    this.#context = context;
    this.#worker = worker;
    this.#memory = memory;
    this.#address = address;
    this.name = { workerAddress: worker.address().toHex(), key: memory.packKey().toHex() };
  }

  /**
   * @param from file or directory of libucp; default: the installed one
   * @throws {LibraryNotFoundError}
   * @throws {UcxError} UCX cannot send on this host, or cannot register the pool's memory
   */
  static open(address: bigint, layout: KvLayout, numBlocks: number, from?: string): UcxPool {
    const context = Ucx.open({ from }).createContext();
    const memory = context.map(address, numBlocks * blockBytes(layout));
    return new UcxPool(context, context.createWorker(), memory, address);
  }

  /** Makes progress for the destinations that read from here, until it is called with -1 as often. */
  serve(change: 1 | -1): void {
    this.#numServed += change;
    if (this.#numServed > 0 && !this.#isServing) this.#progressWhileServing();
  }

  /**
   * The transports by which blocks of a source come: "tcp over eth0".
   * @throws {UnavailableError} there is no way to it
   */
  transports(source: UcxSource): string[] {
    const connection = this.#acquire(source);
    const lanes = connection.endpoint.lanes().map(({ transport, device }) =>
      `${transport} over ${device}`
    );
    this.#release(connection);
    return [...new Set(lanes)];
  }

  /**
   * Reads a piece. Resolves when it is in place.
   * @throws {UnavailableError} the source cannot be reached or has ended, or `stop` was aborted: then
   *   nothing more of it is written
   */
  async read(
    source: UcxSource,
    { sourceOffset, destinationOffset, byteLength }: UcxPiece,
    stop: AbortSignal,
  ): Promise<void> {
    const connection = this.#acquire(source);
    const { endpoint, key } = connection;
    let request: UcxRequest = null;
    try {
      request = endpoint.get(
        this.#memory,
        this.#address + BigInt(destinationOffset),
        byteLength,
        source.address + BigInt(sourceOffset),
        key,
      );
      for (let idle = 0; !this.#worker.isDone(request); idle++) {
        if (endpoint.failure) throw endpoint.failure;
        if (stop.aborted) throw new Error("it was stopped");
        if (this.#worker.progress()) idle = 0;
        else await turn(idle);
      }
    } catch (error) {
      await this.#disconnect(connection, request);
      throw new UnavailableError(`UCX cannot read the pool: ${(error as Error).message}`);
    }
    this.#release(connection);
  }

  /** Nothing is read any more. */
  async close(): Promise<void> {
    this.#numServed = 0;
    await Promise.all(this.#idle.splice(0).map((one) => this.#disconnect(one)));
    this.#worker.close();
    this.#memory.unmap();
    this.#context.close();
  }

  #acquire(source: UcxSource): Connection {
    const { generation } = source;
    const known = this.#idle.findLastIndex((one) => one.generation === generation);
    if (known >= 0) return this.#idle.splice(known, 1)[0];
    try {
      const address = Uint8Array.fromHex(source.workerAddress);
      const endpoint = this.#worker.createEndpoint(address, { errors: "peer" });
      return { generation, endpoint, key: endpoint.unpackKey(Uint8Array.fromHex(source.key)) };
    } catch (error) {
      throw new UnavailableError(`UCX cannot reach the source: ${(error as Error).message}`);
    }
  }

  #release(connection: Connection): void {
    this.#idle.push(connection);
    if (this.#idle.length > MAX_IDLE) this.#disconnect(this.#idle.shift()!);
  }

  /** Closes a connection, and waits until `request` has ended, for it may write until then. */
  async #disconnect({ endpoint, key }: Connection, request: UcxRequest = null): Promise<void> {
    endpoint.destroyKey(key);
    for (const one of [endpoint.close(true), request]) {
      for (let idle = 0; !this.#hasEnded(one); idle++) {
        if (!this.#worker.progress()) await turn(idle);
      }
    }
  }

  #hasEnded(request: UcxRequest): boolean {
    try {
      return this.#worker.isDone(request);
    } catch {
      return true; // it has failed, or was cancelled
    }
  }

  async #progressWhileServing(): Promise<void> {
    this.#isServing = true;
    for (let idle = 0; this.#numServed > 0; idle++) {
      if (this.#worker.progress()) idle = 0;
      await turn(idle);
    }
    this.#isServing = false;
  }
}

/** A turn of the event loop. A thread that waits for long sleeps in between. */
async function turn(idleTurns: number): Promise<void> {
  if (idleTurns < BUSY_TURNS) await setImmediate();
  else await sleep(IDLE_MS);
}
