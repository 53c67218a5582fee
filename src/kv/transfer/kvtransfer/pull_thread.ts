/**
 * The pull thread: a {@linkcode BlockPuller} in a worker, so that copying blocks takes no time from the
 * instance's main thread, which schedules.
 */
import { setImmediate } from "node:timers/promises";
import { openProcessMemory } from "../../../../ffi/process_memory.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import { blockBytes } from "../../layout.ts";
import { startBackendThread } from "../backend_thread.ts";
import { PIECE_BYTES } from "../pace.ts";
import type { PoolMemory } from "../pool_cursor.ts";
import { PoolPrefault } from "../pool_prefault.ts";
import { BlockPuller, type Puller, type PullOrder } from "./block_puller.ts";
import { type UcxName, UcxPool, type UcxSource } from "./ucx_pool.ts";

/** The pool that blocks come into. */
export interface PulledPool extends PoolMemory {
  readonly numBlocks: number;
}

/** Whether blocks go to and from other hosts too, by UCX. */
export interface UcxChoice {
  /** File or directory of libucp; absent: the installed one. */
  readonly from?: string;
}

/** What came of it: how others reach the pool, or why UCX cannot be used. */
export type UcxState = { readonly name: UcxName } | { readonly failure: string };

/** Main thread to worker; each has one answer. */
type ThreadRequest =
  & { readonly id: number }
  & (
    | { readonly type: "open"; readonly pool: PulledPool; readonly ucx: UcxChoice | null }
    /** Destinations on other hosts read from here: one more, or one less. */
    | { readonly type: "serve"; readonly change: 1 | -1 }
    /** Asks by which transports a source on another host is reached. */
    | { readonly type: "transports"; readonly source: UcxSource }
    | { readonly type: "pull"; readonly order: PullOrder }
    | { readonly type: "prepare"; readonly blocks: readonly number[] }
    /** Ends the pulls of a migration. */
    | { readonly type: "stop"; readonly migrationId: MigrationId }
    | { readonly type: "close" }
  );

/** Worker to main thread; `failure` says why the request failed. */
interface ThreadReply {
  readonly id: number;
  readonly failure?: string;
  readonly result?: unknown;
}

type Unsent<T> = T extends unknown ? Omit<T, "id"> : never;

/** The entry of the worker. */
export function runPullThread(): void {
  const scope = globalThis as unknown as Worker;
  let puller: BlockPuller, prefault: PoolPrefault, ucx: UcxPool | null = null;
  const handle = async (request: ThreadRequest): Promise<unknown> => {
    switch (request.type) {
      case "open": {
        const memory = openProcessMemory();
        if (memory === null) throw new Error("kvtransfer needs Linux");
        let state: UcxState | null = null;
        if (request.ucx !== null) {
          const { address, layout, numBlocks } = request.pool;
          try {
            ucx = UcxPool.open(address!, layout, numBlocks, request.ucx.from);
            state = { name: ucx.name };
          } catch (error) {
            state = { failure: (error as Error).message };
          }
        }
        puller = new BlockPuller(memory, request.pool, ucx);
        prefault = new PoolPrefault(request.pool, request.pool.numBlocks);
        return state;
      }
      case "pull":
        return await puller.pull(request.order);
      case "prepare":
        prefault.add(request.blocks);
        for (; !prefault.isDone; await setImmediate()) prefault.step();
        return;
      case "stop":
        return await puller.stop(request.migrationId);
      case "serve":
        return ucx?.serve(request.change);
      case "transports":
        return ucx?.transports(request.source) ?? [];
      case "close":
        await puller.stop();
        return await ucx?.close();
    }
  };
  scope.onmessage = async ({ data: request }: MessageEvent<ThreadRequest>) => {
    const { id } = request;
    const reply = await handle(request).then(
      (result): ThreadReply => ({ id, result }),
      (error): ThreadReply => ({ id, failure: error.message }),
    );
    scope.postMessage(reply);
  };
  scope.postMessage("ready");
}

/** A pull that the thread has been asked for. */
interface AskedPull {
  readonly migrationId: MigrationId;
  readonly stopWord: Int32Array<SharedArrayBuffer>;
}

/** The main thread's link to the pull thread. If the thread dies, the link has failed for good. */
export class PullThread implements Puller {
  readonly #worker: Worker;
  readonly #pool: PoolMemory;
  /** Copies what takes less time than waking the thread: most last stages. */
  readonly #ownPuller: BlockPuller | null;
  readonly #asked = new Set<AskedPull>();
  readonly #pending = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #death = Promise.withResolvers<string>();
  #nextId = 0;
  /** Why the link has ended; null while it works. */
  failure: string | null = null;

  /** Null where it was not asked for. */
  ucx: UcxState | null = null;

  private constructor(worker: Worker, pool: PoolMemory) {
    this.#worker = worker;
    this.#pool = pool;
    const memory = openProcessMemory();
    this.#ownPuller = memory === null ? null : new BlockPuller(memory, pool);
    worker.onmessage = ({ data: { id, failure, result } }: MessageEvent<ThreadReply>) => {
      const reply = this.#pending.get(id);
      this.#pending.delete(id);
      if (failure === undefined) reply?.resolve(result);
      else reply?.reject(new UnavailableError(failure));
    };
    worker.onerror = (event) => {
      event.preventDefault(); // unhandled, it would end this process
      const reason = `the pull thread died: ${event.message}`;
      this.#end(reason);
      this.#death.resolve(reason);
    };
  }

  /**
   * @param ucx null: blocks stay on this host
   * @param startWorker starts a worker that calls {@linkcode runPullThread}
   * @throws {UnavailableError} the thread cannot start
   */
  static async start(
    pool: PulledPool,
    ucx: UcxChoice | null,
    startWorker = () => startBackendThread("kvtransfer"),
  ): Promise<PullThread> {
    const worker = startWorker();
    const ready = Promise.withResolvers<void>();
    worker.onmessage = () => ready.resolve(); // a message sent before would be lost
    worker.onerror = (event) => {
      event.preventDefault();
      ready.reject(new UnavailableError(`the pull thread died: ${event.message}`));
    };
    await ready.promise;
    const { address, layout, numBlocks } = pool;
    const thread = new PullThread(worker, { address, layout });
    const opened = thread.#call({ type: "open", pool: { address, layout, numBlocks }, ucx });
    thread.ucx = await opened as UcxState | null;
    return thread;
  }

  /** Resolves with the reason when the thread dies. */
  get died(): Promise<string> {
    return this.#death.promise;
  }

  /** @throws {UnavailableError} as {@linkcode BlockPuller.pull} does, or the thread has ended */
  async pull(order: PullOrder): Promise<void> {
    const bytes = order.sourceBlocks.length * blockBytes(this.#pool.layout);
    const isSmall = bytes <= PIECE_BYTES && order.source.ucx === null && this.failure === null;
    if (isSmall && this.#ownPuller !== null) return await this.#ownPuller.pull(order);
    const stopWord = new Int32Array(new SharedArrayBuffer(4));
    const asked = { migrationId: order.migrationId, stopWord };
    this.#asked.add(asked);
    try {
      await this.#call({ type: "pull", order: { ...order, stopWord } });
    } finally {
      this.#asked.delete(asked);
    }
  }

  /** Makes progress for a destination on another host while `action` is under way. */
  async serveDuring(action: Promise<void>): Promise<void> {
    const serve = (change: 1 | -1) => this.#call({ type: "serve", change }).catch(() => {});
    serve(1);
    await action.finally(() => serve(-1));
  }

  /** The transports by which blocks of a source on another host come. */
  async transports(source: UcxSource): Promise<readonly string[]> {
    return await this.#call({ type: "transports", source }) as string[];
  }

  prepare(blocks: readonly number[]): void {
    this.#call({ type: "prepare", blocks }).catch(() => {});
  }

  /** Resolves when no pull of the migration writes any more. */
  async stop(migrationId: MigrationId): Promise<void> {
    this.#stopAsked(migrationId);
    await this.#ownPuller?.stop(migrationId);
    // A thread that has ended writes nothing any more.
    await this.#call({ type: "stop", migrationId }).catch(() => {});
  }

  /** Resolves when the thread writes nothing any more. */
  async close(): Promise<void> {
    this.#stopAsked();
    await this.#ownPuller?.stop();
    await this.#call({ type: "close" }).catch(() => {});
    this.#worker.terminate();
    this.#end("the migration backend is closed");
  }

  /** Ends the pulls of a migration, or all, before their next piece: the thread reads no message there. */
  #stopAsked(migrationId?: MigrationId): void {
    for (const asked of this.#asked) {
      if ((migrationId ?? asked.migrationId) === asked.migrationId) {
        Atomics.store(asked.stopWord, 0, 1);
      }
    }
  }

  #call(request: Unsent<ThreadRequest>): Promise<unknown> {
    if (this.failure !== null) return Promise.reject(new UnavailableError(this.failure));
    const id = this.#nextId++;
    const reply = Promise.withResolvers<unknown>();
    this.#pending.set(id, reply);
    this.#worker.postMessage({ ...request, id });
    return reply.promise;
  }

  #end(failure: string): void {
    this.failure ??= failure;
    for (const { reject } of this.#pending.values()) reject(new UnavailableError(failure));
    this.#pending.clear();
  }
}
