/**
 * The transfer thread: a {@linkcode GlooExchange} in a worker, so that moving blocks takes no time from
 * the instance's main thread, which schedules. The worker blocks in `poll`, and runs its event loop only while
 * a device copies blocks.
 * The main thread writes a byte into a pipe with each message, which ends the `poll`.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { setImmediate } from "node:timers";
import { openSockets, type Sockets } from "../../../../ffi/sockets.ts";
import type { FailedPeer, MigrationGroup, MigrationId } from "../../../core/protocol/migration.ts";
import { openPool } from "../../pool/open_pool.ts";
import { failureOf, type KvPool } from "../../pool/pool.ts";
import { type ExchangeConfig, type ExchangeTransfer, GlooExchange } from "./exchange.ts";
import { Staging } from "./staging.ts";

/** Main thread to worker. Each has one answer; the answer to an `abort` is that to its `send`. */
export type ThreadRequest =
  & { readonly id: number }
  & (
    | { readonly type: "join"; readonly group: MigrationGroup }
    | {
      readonly type: "grant";
      readonly migrationId: MigrationId;
      readonly blocks: readonly number[];
    }
    | { readonly type: "prepare"; readonly blocks: readonly number[] }
    | { readonly type: "revoke"; readonly migrationId: MigrationId }
    | { readonly type: "send"; readonly transfer: ExchangeTransfer }
    /** `id` is that of the `send`. */
    | { readonly type: "abort" }
    | { readonly type: "close" }
  );

/** Worker to main thread. */
export interface ThreadReply {
  /** Of the request; -1 for what the thread tells unasked: a `defect`, or `poolFailure`. */
  readonly id: number;
  /** Why the pool of a device copies nothing any more. */
  readonly poolFailure?: string;
  /** Stack of an error that cost a peer its connection: only the main thread has a log. */
  readonly defect?: string;
  /** Why a `send` failed. */
  readonly failure?: string;
  /** For a `join`. */
  readonly failedPeers?: readonly FailedPeer[];
}

/** First message to the worker, sent after its message `ready`. */
export interface ThreadStart {
  readonly config: ExchangeConfig;
  readonly port: globalThis.MessagePort;
}

/** The answer: the port for peers and the descriptor that wakes the thread, or why it cannot run. */
export type ThreadStarted =
  | { readonly port: number; readonly wakeFd: number }
  | { readonly failure: string };

/** The entry of the worker: serves the main thread that started it. */
export function runTransferThread(): void {
  const scope = globalThis as unknown as Worker & { close(): void };
  scope.onmessage = async ({ data }: MessageEvent<ThreadStart>) => {
    const thread = await start(data, (started) => scope.postMessage(started));
    await thread?.run();
    scope.close();
  };
  scope.postMessage("ready");
}

async function start(
  { config, port }: ThreadStart,
  answer: (started: ThreadStarted) => void,
): Promise<TransferThread | null> {
  try {
    const pool = config.devicePool ? await openPool(config.devicePool) : null;
    const staging = pool?.memory === "device" ? new Staging(pool) : null;
    const sockets = openSockets();
    if (sockets === null) throw new Error("gloo needs Linux");
    const { readEnd, writeEnd: wakeFd } = sockets.pipe();
    const onDefect = (error: unknown) => {
      const { stack = String(error) } = error as Error;
      port.postMessage({ id: -1, defect: stack } satisfies ThreadReply);
    };
    const exchange = new GlooExchange(sockets, config, onDefect, staging);
    const onPoolFailure = (poolFailure: string) => {
      port.postMessage({ id: -1, poolFailure } satisfies ThreadReply);
    };
    if (pool !== null) failureOf(pool)?.then(onPoolFailure);
    answer({ port: exchange.port, wakeFd });
    return new TransferThread(sockets, exchange, port as unknown as MessagePort, readEnd, pool);
  } catch (error) {
    answer({ failure: (error as Error).message });
    return null;
  }
}

class TransferThread {
  readonly #sockets: Sockets;
  readonly #exchange: GlooExchange;
  readonly #messages: MessagePort;
  readonly #wakeFd: number;
  readonly #wakeBytes = new Uint8Array(256);
  /** What aborts a `send`, by its id. */
  readonly #aborts = new Map<number, () => void>();
  /** The pool of a device that this thread has opened. */
  readonly #pool: KvPool | null;
  #isClosed = false;
  #closeId = -1;

  constructor(
    sockets: Sockets,
    exchange: GlooExchange,
    messages: MessagePort,
    wakeFd: number,
    pool: KvPool | null,
  ) {
    this.#pool = pool;
    this.#sockets = sockets;
    this.#exchange = exchange;
    this.#messages = messages;
    this.#wakeFd = wakeFd;
  }

  /** Runs until it is closed. An error closes the connections first, so that peers notice. */
  async run(): Promise<void> {
    try {
      while (!this.#isClosed) {
        this.#turn();
        if (this.#exchange.isCopying) await new Promise((resolve) => setImmediate(resolve));
      }
    } catch (error) {
      this.#exchange.close();
      throw error;
    }
    if (this.#pool?.memory === "device") await this.#pool.close();
    this.#reply({ id: this.#closeId });
  }

  #turn(): void {
    this.#exchange.turn(this.#wakeFd);
    this.#sockets.read(this.#wakeFd, this.#wakeBytes);
    for (let next; (next = receiveMessageOnPort(this.#messages)) !== undefined;) {
      this.#handle(next.message as ThreadRequest);
    }
  }

  #handle(request: ThreadRequest): void {
    const { id } = request;
    switch (request.type) {
      case "join":
        return this.#exchange.join(
          request.group,
          (failedPeers) => this.#reply({ id, failedPeers }),
        );
      case "grant":
        this.#exchange.grant(request.migrationId, request.blocks);
        return this.#reply({ id });
      case "prepare":
        this.#exchange.prepare(request.blocks);
        return this.#reply({ id });
      case "revoke":
        this.#exchange.revoke(request.migrationId);
        return this.#replyWhenIdle(request.migrationId, { id });
      case "send": {
        const abort = this.#exchange.send(request.transfer, (failure) => {
          this.#aborts.delete(id);
          const reply = { id, failure: failure ?? undefined };
          this.#replyWhenIdle(request.transfer.migrationId, reply);
        });
        return void this.#aborts.set(id, abort);
      }
      case "abort":
        return this.#aborts.get(id)?.();
      case "close":
        this.#exchange.close();
        this.#sockets.close(this.#wakeFd);
        this.#isClosed = true;
        this.#closeId = id;
        return;
    }
  }

  /** A copy of the device that is under way still reads or writes blocks. */
  #replyWhenIdle(migrationId: MigrationId, reply: ThreadReply): void {
    const idle = this.#exchange.idle(migrationId);
    if (idle === null) this.#reply(reply);
    else idle.then(() => this.#reply(reply));
  }

  #reply(reply: ThreadReply): void {
    this.#messages.postMessage(reply);
  }
}
