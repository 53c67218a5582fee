/**
 * The pull thread: a {@linkcode BlockPuller} in a worker, so that copying blocks takes no time from the
 * instance's main thread, which schedules.
 */
import { setImmediate } from "node:timers/promises";
import { openProcessMemory } from "../../../../ffi/process_memory.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import { startBackendThread } from "../backend_thread.ts";
import type { PoolMemory } from "../pool_cursor.ts";
import { PoolPrefault } from "../pool_prefault.ts";
import { BlockPuller, type Puller, type PullOrder } from "./block_puller.ts";

/** The pool that blocks come into. */
export interface PulledPool extends PoolMemory {
  readonly numBlocks: number;
}

/** Main thread to worker; each has one answer. */
type ThreadRequest =
  & { readonly id: number }
  & (
    | { readonly type: "open"; readonly pool: PulledPool }
    | { readonly type: "pull"; readonly order: PullOrder }
    | { readonly type: "prepare"; readonly blocks: readonly number[] }
    /** Ends the pulls of a migration; absent: all. */
    | { readonly type: "stop"; readonly migrationId?: MigrationId }
  );

/** Worker to main thread; `failure` says why the request failed. */
interface ThreadReply {
  readonly id: number;
  readonly failure?: string;
}

type Unsent<T> = T extends unknown ? Omit<T, "id"> : never;

/** The entry of the worker. */
export function runPullThread(): void {
  const scope = globalThis as unknown as Worker;
  let puller: BlockPuller, prefault: PoolPrefault;
  const handle = async (request: ThreadRequest): Promise<void> => {
    switch (request.type) {
      case "open": {
        const memory = openProcessMemory();
        if (memory === null) throw new Error("kvtransfer needs Linux");
        puller = new BlockPuller(memory, request.pool);
        prefault = new PoolPrefault(request.pool, request.pool.numBlocks);
        return;
      }
      case "pull":
        return await puller.pull(request.order);
      case "prepare":
        prefault.add(request.blocks);
        for (; !prefault.isDone; await setImmediate()) prefault.step();
        return;
      case "stop":
        return await puller.stop(request.migrationId);
    }
  };
  scope.onmessage = async ({ data: request }: MessageEvent<ThreadRequest>) => {
    const { id } = request;
    const failure = await handle(request).then(() => undefined, (error) => error.message);
    scope.postMessage({ id, failure } satisfies ThreadReply);
  };
  scope.postMessage("ready");
}

/** The main thread's link to the pull thread. If the thread dies, the link has failed for good. */
export class PullThread implements Puller {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PromiseWithResolvers<void>>();
  readonly #death = Promise.withResolvers<string>();
  #nextId = 0;
  /** Why the link has ended; null while it works. */
  failure: string | null = null;

  private constructor(worker: Worker) {
    this.#worker = worker;
    worker.onmessage = ({ data: { id, failure } }: MessageEvent<ThreadReply>) => {
      const reply = this.#pending.get(id);
      this.#pending.delete(id);
      if (failure === undefined) reply?.resolve();
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
   * @param startWorker starts a worker that calls {@linkcode runPullThread}
   * @throws {UnavailableError} the thread cannot start
   */
  static async start(
    pool: PulledPool,
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
    const thread = new PullThread(worker);
    const { address, layout, numBlocks } = pool;
    await thread.#call({ type: "open", pool: { address, layout, numBlocks } });
    return thread;
  }

  /** Resolves with the reason when the thread dies. */
  get died(): Promise<string> {
    return this.#death.promise;
  }

  /** @throws {UnavailableError} as {@linkcode BlockPuller.pull} does, or the thread has ended */
  pull(order: PullOrder): Promise<void> {
    return this.#call({ type: "pull", order });
  }

  prepare(blocks: readonly number[]): void {
    this.#call({ type: "prepare", blocks }).catch(() => {});
  }

  /** Resolves when no pull of the migration writes any more. */
  async stop(migrationId?: MigrationId): Promise<void> {
    // A thread that has ended writes nothing any more.
    await this.#call({ type: "stop", migrationId }).catch(() => {});
  }

  /** Resolves when the thread writes nothing any more. */
  async close(): Promise<void> {
    await this.stop();
    this.#worker.terminate();
    this.#end("the migration backend is closed");
  }

  #call(request: Unsent<ThreadRequest>): Promise<void> {
    if (this.failure !== null) return Promise.reject(new UnavailableError(this.failure));
    const id = this.#nextId++;
    const reply = Promise.withResolvers<void>();
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
