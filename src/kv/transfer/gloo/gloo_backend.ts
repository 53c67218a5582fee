import { openSockets, type Sockets } from "../../../../ffi/sockets.ts";
import type { Clock } from "../../../core/clock.ts";
import { UnavailableError, UsageError } from "../../../core/errors.ts";
import { logger } from "../../../core/log.ts";
import type {
  FailedPeer,
  MigrationGroup,
  MigrationId,
  TransferStatistics,
} from "../../../core/protocol/migration.ts";
import { layerBytes } from "../../layout.ts";
import { checkRun } from "../../pool/pool_bounds.ts";
import { startBackendThread } from "../backend_thread.ts";
import type { BlockTransfer, MigrationBackend, TransferLimits } from "../backend.ts";
import { transferRounds } from "../rounds.ts";
import { checkLists, checkStillWanted } from "../transfer_checks.ts";
import type { ExchangeConfig } from "./exchange.ts";
import type { GlooEndpoint } from "./outgoing_connection.ts";
import type { ThreadReply, ThreadRequest, ThreadStart, ThreadStarted } from "./transfer_thread.ts";

const log = logger("gloo");

export interface GlooBackendArgs extends ExchangeConfig {
  readonly limits: TransferLimits;
  readonly clock: Clock;
  /** Starts a worker that calls `runTransferThread`; default: {@linkcode startBackendThread}. */
  readonly startWorker?: () => Worker;
}

type Unsent<T> = T extends unknown ? Omit<T, "id"> : never;

/**
 * Point-to-point TCP in a group with ranks, as in gloo. The manager sends each member the list of
 * members, and each connects to every other. Blocks go from the source's pool to the socket, and from the
 * socket into the destination's pool, without a copy between; a thread does this ({@linkcode GlooExchange}).
 * Members prove to each other that they have the group's secret; between hosts they also encrypt.
 */
export class GlooBackend implements MigrationBackend {
  readonly name = "gloo";
  readonly endpoint: GlooEndpoint & Record<string, unknown>;
  readonly #args: GlooBackendArgs;
  readonly #thread: ThreadLink;
  #isInGroup = false;

  private constructor(args: GlooBackendArgs, thread: ThreadLink) {
    this.#args = args;
    this.#thread = thread;
    this.endpoint = { host: args.host, port: thread.port };
  }

  /**
   * Starts the transfer thread, which listens.
   * @throws {UsageError} this system is not Linux
   * @throws {UnavailableError} the thread cannot listen
   */
  static async open(args: GlooBackendArgs): Promise<GlooBackend> {
    const sockets = openSockets();
    if (sockets === null) {
      throw new UsageError("--migration-backend gloo needs Linux; choose rayrpc");
    }
    return new GlooBackend(args, await ThreadLink.open(args, sockets));
  }

  get isReady(): boolean {
    const { failure, hasPoolFailed } = this.#thread;
    return this.#isInGroup && failure === null && !hasPoolFailed;
  }

  get failed(): Promise<string> {
    return this.#thread.failed;
  }

  async join(group: MigrationGroup): Promise<readonly FailedPeer[]> {
    const { failedPeers = [] } = await this.#thread.call({ type: "join", group });
    this.#isInGroup = true;
    return failedPeers;
  }

  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    this.#checkBlocks(blocks);
    await this.#thread.call({ type: "grant", migrationId, blocks });
  }

  prepare(blocks: readonly number[]): void {
    this.#checkBlocks(blocks);
    this.#thread.call({ type: "prepare", blocks }).catch(() => {});
  }

  async revoke(migrationId: MigrationId): Promise<void> {
    // A thread that has ended writes nothing any more.
    await this.#thread.call({ type: "revoke", migrationId }).catch(() => {});
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { clock, limits } = this.#args;
    const { migrationId, sourceBlocks, destinationBlocks, destination } = transfer;
    const startMs = clock.nowMs();
    checkLists(transfer);
    checkStillWanted(transfer, signal, clock);
    this.#checkBlocks(sourceBlocks);
    const sending = this.#thread.send({
      migrationId,
      destinationId: destination.instanceId,
      sourceBlocks,
      destinationBlocks,
      limits,
      timeoutMs: transfer.deadlineMs - startMs,
      isBackground: transfer.isBackground === true,
    }, signal);
    const failure = await sending;
    // The thread may have finished before it heard of the abort; the transfer has failed all the same.
    if (failure !== null || signal.aborted) {
      checkStillWanted(transfer, signal, clock);
      throw new UnavailableError(failure ?? "the transfer was aborted");
    }
    return { ...this.#statisticsOf(transfer), transferMs: clock.nowMs() - startMs };
  }

  async close(): Promise<void> {
    await this.#thread.close();
  }

  #checkBlocks(blocks: readonly number[]): void {
    const { pool: { layout }, numBlocks } = this.#args;
    for (const block of blocks) checkRun(layout, numBlocks, block, 0, layout.numLayers);
  }

  #statisticsOf({ sourceBlocks, destinationBlocks }: BlockTransfer) {
    const { pool: { layout }, limits } = this.#args;
    const statistics = { bytes: 0, descriptors: 0, rounds: 0 };
    for (
      const round of transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, limits)
    ) {
      statistics.bytes += round.numBlocks * round.numLayers * layerBytes(layout);
      statistics.descriptors += round.runs.length;
      statistics.rounds++;
    }
    return statistics;
  }
}

/** The main thread's link to the transfer thread. The first failure of any kind ends it for good. */
class ThreadLink {
  readonly port: number;
  readonly #sockets: Sockets;
  readonly #messages: MessagePort;
  readonly #wakeFd: number;
  readonly #pending = new Map<number, PromiseWithResolvers<ThreadReply>>();
  #nextId = 0;
  #closing: Promise<void> | null = null;
  #hasEnded = false;
  readonly #failed = Promise.withResolvers<string>();
  /** Why the link has ended; null while it works. */
  failure: string | null = null;
  /** The thread goes on: a revocation waits for a copy of the device that hangs. */
  hasPoolFailed = false;

  private constructor(
    worker: Worker,
    sockets: Sockets,
    messages: MessagePort,
    { port, wakeFd }: { readonly port: number; readonly wakeFd: number },
  ) {
    this.port = port;
    this.#sockets = sockets;
    this.#messages = messages;
    this.#wakeFd = wakeFd;
    messages.onmessage = ({ data }: MessageEvent<ThreadReply>) => {
      if (data.defect !== undefined) {
        log.error("closed a connection: its message was not handled", { error: data.defect });
      }
      if (data.poolFailure !== undefined) {
        this.hasPoolFailed = true;
        this.#failed.resolve(data.poolFailure);
      }
      this.#pending.get(data.id)?.resolve(data);
      this.#pending.delete(data.id);
    };
    worker.onerror = (event) => {
      event.preventDefault(); // unhandled, it would end this process
      const reason = `the transfer thread died: ${event.message}`;
      this.#end(reason);
      if (this.#closing === null) this.#failed.resolve(reason);
    };
  }

  /** Resolves with the reason when the thread dies, unless it was closed, or its pool fails. */
  get failed(): Promise<string> {
    return this.#failed.promise;
  }

  /** @throws {UnavailableError} the thread cannot start, or cannot listen */
  static async open(args: GlooBackendArgs, sockets: Sockets): Promise<ThreadLink> {
    const worker = (args.startWorker ?? (() => startBackendThread("gloo")))();
    const { port1, port2 } = new MessageChannel();
    await nextMessage(worker); // a message sent before it is ready would be lost
    const { identity, pool, devicePool, numBlocks, host, isSealed, initTimeoutMs } = args;
    const config: ExchangeConfig = {
      ...{ identity, pool, devicePool, numBlocks, host, isSealed, initTimeoutMs },
    };
    worker.postMessage({ config, port: port2 } satisfies ThreadStart, [port2]);
    const started = await nextMessage(worker) as ThreadStarted;
    if (!("failure" in started)) return new ThreadLink(worker, sockets, port1, started);
    port1.close();
    throw new UnavailableError(`--migration-backend gloo: ${started.failure}`);
  }

  /** @throws {UnavailableError} the thread has ended */
  call(request: Unsent<ThreadRequest>): Promise<ThreadReply> {
    if (this.failure !== null) return Promise.reject(new UnavailableError(this.failure));
    const id = this.#nextId++;
    const reply = Promise.withResolvers<ThreadReply>();
    this.#pending.set(id, reply);
    this.#post({ ...request, id } as ThreadRequest);
    return reply.promise;
  }

  /** @returns why the transfer failed, or null */
  async send(
    transfer: (ThreadRequest & { type: "send" })["transfer"],
    signal: AbortSignal,
  ): Promise<string | null> {
    const id = this.#nextId;
    const sent = this.call({ type: "send", transfer });
    const abort = () => this.failure ?? this.#post({ type: "abort", id });
    signal.addEventListener("abort", abort);
    try {
      return (await sent).failure ?? null;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    if (this.failure !== null) return;
    const closed = this.call({ type: "close" });
    this.failure = "the migration backend is closed";
    await closed.catch(() => {});
    this.#end(this.failure);
  }

  #post(request: ThreadRequest): void {
    this.#messages.postMessage(request);
    this.#sockets.write(this.#wakeFd, new Uint8Array(1));
  }

  /** Runs once: after closing, the number of the descriptor may belong to another file. */
  #end(failure: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.failure = failure;
    for (const { reject } of this.#pending.values()) reject(new UnavailableError(failure));
    this.#pending.clear();
    this.#messages.close();
    this.#sockets.close(this.#wakeFd);
  }
}

function nextMessage(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new UnavailableError(`the transfer thread died: ${event.message}`));
    };
  });
}
