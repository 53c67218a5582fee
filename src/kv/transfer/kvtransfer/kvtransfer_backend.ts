import { libraries } from "../../../../ffi/library_search.ts";
import type { Clock } from "../../../core/clock.ts";
import { RequestError, UnavailableError } from "../../../core/errors.ts";
import { logger } from "../../../core/log.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import type {
  BlockPull,
  MigrationId,
  TransferStatistics,
} from "../../../core/protocol/migration.ts";
import { blockBytes, layoutDifference } from "../../layout.ts";
import type { KvPool } from "../../pool/pool.ts";
import { checkRun } from "../../pool/pool_bounds.ts";
import type { BackendMessage, BlockTransfer, MigrationBackend } from "../backend.ts";
import type { BackendLinks } from "../backend_kind.ts";
import { transferRounds } from "../rounds.ts";
import { checkLists, checkStillWanted, unlessAborted } from "../transfer_checks.ts";
import { WriteGrants } from "../write_grants.ts";
import { type HostProcess, isNeighbour } from "./host_process.ts";
import type { NamingDirectory, NamingEntry } from "./naming.ts";
import type { Puller, PullOrder } from "./block_puller.ts";
import { PullThread, type UcxChoice } from "./pull_thread.ts";

const log = logger("kvtransfer");
/** Sources of which it is remembered that their path was logged. */
const MAX_KNOWN = 1_000;

export interface KvTransferBackendArgs {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly pool: KvPool;
  readonly naming: NamingDirectory;
  readonly process: HostProcess;
  readonly clock: Clock;
  /** Absent: blocks stay on this host. */
  readonly ucx?: UcxChoice;
  /** Closed with the backend. */
  readonly links: BackendLinks;
  /** What copies blocks of a device, and the handle of their memory for other processes. */
  readonly device?: { readonly puller: Puller; readonly ipcHandle: string };
  /** Starts a worker that calls `runPullThread`. */
  readonly startWorker?: () => Worker;
}

/**
 * The destination pulls: the source asks it by a call over the bus, and the destination reads the blocks
 * out of the source's memory, which it finds in the naming directory. So a revocation concerns the
 * destination alone: once its own thread has stopped, nobody can write. The source's threads do nothing
 * while blocks are copied; the answer to the call tells it that they are in place.
 */
export class KvTransferBackend implements MigrationBackend {
  readonly name = "kvtransfer";
  readonly endpoint: Readonly<Record<string, unknown>>;
  readonly calls = {
    migrate_pull: (message: BackendMessage<BlockPull>): Promise<BackendMessage<null>> =>
      this.#pull(message.data),
  };
  readonly #args: KvTransferBackendArgs;
  readonly #entry: NamingEntry;
  readonly #puller: Puller;
  /** The puller of pools in host memory. */
  readonly #thread: PullThread | null;
  readonly #grants: WriteGrants;
  /** Generations of sources from which blocks have come. */
  readonly #known = new Set<string>();
  #closing: Promise<void> | null = null;

  private constructor(args: KvTransferBackendArgs, entry: NamingEntry, puller: Puller) {
    this.#args = args;
    this.#entry = entry;
    this.#puller = puller;
    this.#thread = puller instanceof PullThread ? puller : null;
    this.#grants = new WriteGrants(args.pool.numBlocks);
    const { bootId, pidNamespace } = args.process;
    this.endpoint = { naming: args.naming.path, bootId, pidNamespace };
  }

  /**
   * Starts the thread and writes the instance's entry.
   * @throws {UsageError} the naming directory cannot be written
   * @throws {UnavailableError} the thread cannot start
   */
  static async open(args: KvTransferBackendArgs): Promise<KvTransferBackend> {
    const { naming, process, pool, instanceId, model } = args;
    const { layout, numBlocks, memory } = pool;
    const address = pool.memory === "none" ? null : pool.address;
    for (const stale of naming.removeStale(process)) {
      log.info(`removed the naming entry of ${stale}, which has ended`);
    }
    const ucxChoice = pool.memory === "host" ? args.ucx ?? null : null;
    const puller = args.device?.puller ?? await PullThread.start(
      { address, layout, numBlocks },
      ucxChoice,
      args.startWorker,
    );
    const ucx = puller instanceof PullThread ? puller.ucx : null;
    if (ucx !== null && "failure" in ucx) {
      log.warn(
        `requests move between instances of this host only, for want of UCX: ${ucx.failure}`,
      );
    }
    const entry: NamingEntry = {
      ucx: ucx !== null && "name" in ucx ? ucx.name : null,
      instanceId,
      model,
      generation: crypto.randomUUID(),
      process,
      pool: {
        ...{ memory, layout, numBlocks, address: `0x${(address ?? 0n).toString(16)}` },
        ipcHandle: args.device?.ipcHandle,
      },
    };
    try {
      naming.write(entry);
    } catch (error) {
      await puller.close();
      throw error;
    }
    return new KvTransferBackend(args, entry, puller);
  }

  get isReady(): boolean {
    return this.#closing === null && this.#puller.failure === null;
  }

  get failed(): Promise<string> {
    return this.#puller.died;
  }

  // deno-lint-ignore require-await -- an error must be a rejection
  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    this.#grants.grant(migrationId, blocks);
  }

  prepare(blocks: readonly number[]): void {
    this.#checkBlocks(blocks);
    this.#puller.prepare(blocks);
  }

  async revoke(migrationId: MigrationId): Promise<void> {
    this.#grants.revoke(migrationId);
    await this.#puller.stop(migrationId);
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { clock, pool: { layout } } = this.#args;
    const { sourceBlocks, destinationBlocks } = transfer;
    const startMs = clock.nowMs();
    checkLists(transfer);
    this.#checkBlocks(sourceBlocks);
    checkStillWanted(transfer, signal, clock);
    this.#checkOpen();
    this.#checkNaming(transfer);
    const whole = { bufferBlocks: sourceBlocks.length, numLayers: layout.numLayers };
    const rounds = [...transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, whole)];
    if (rounds.length > 0) {
      const asking = this.#askToPull(transfer, signal);
      await (this.#isOnThisHost(transfer) ? asking : this.#serveDuring(asking));
    }
    checkStillWanted(transfer, signal, clock);
    this.#checkOpen();
    return {
      bytes: sourceBlocks.length * blockBytes(layout),
      descriptors: rounds.reduce((sum, { runs }) => sum + runs.length, 0),
      rounds: rounds.length,
      transferMs: clock.nowMs() - startMs,
    };
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#args.naming.remove(this.#entry);
    await this.#args.links.close();
    await this.#puller.close();
  }

  #checkOpen(): void {
    if (this.#closing !== null) throw new UnavailableError("the migration backend is closed");
  }

  #checkBlocks(blocks: readonly number[]): void {
    const { layout, numBlocks } = this.#args.pool;
    for (const block of blocks) checkRun(layout, numBlocks, block, 0, layout.numLayers);
  }

  /** @throws {UnavailableError} the destination looks for entries elsewhere */
  #checkNaming({ endpoint, destination: { instanceId } }: BlockTransfer): void {
    const here = this.endpoint.naming, there = endpoint.naming;
    if (here === there) return;
    throw new UnavailableError(
      `the naming directory is ${here} here and ${there} for ${instanceId}: give both the same ` +
        "--migration-backend-kvtransfer-naming-url",
    );
  }

  #isOnThisHost({ endpoint }: BlockTransfer): boolean {
    const { bootId, pidNamespace } = this.endpoint;
    return endpoint.bootId === bootId && endpoint.pidNamespace === pidNamespace;
  }

  async #askToPull(transfer: BlockTransfer, signal: AbortSignal): Promise<void> {
    const { links, clock } = this.#args;
    const { migrationId, destination, sourceBlocks, destinationBlocks, deadlineMs } = transfer;
    const { instanceId: sourceId, generation } = this.#entry;
    const link = await unlessAborted(
      links.open(destination.address, deadlineMs - clock.nowMs()),
      signal,
    );
    const timeoutMs = Math.max(0, deadlineMs - clock.nowMs());
    const data: BlockPull = {
      ...{ migrationId, sourceId, generation, sourceBlocks, destinationBlocks, timeoutMs },
      isBackground: transfer.isBackground ?? false,
    };
    try {
      await unlessAborted(link.call("migrate_pull", { data }, { timeoutMs }), signal);
    } catch (error) {
      link.close(); // it may hang; the next transfer opens a new one
      throw error;
    }
  }

  /** As the destination. */
  async #pull(order: BlockPull): Promise<BackendMessage<null>> {
    const { migrationId, sourceId, sourceBlocks, destinationBlocks } = order;
    this.#checkOpen();
    if (sourceBlocks.length !== destinationBlocks.length) {
      throw new RequestError(
        `a pull of ${sourceBlocks.length} blocks into ${destinationBlocks.length} blocks`,
      );
    }
    this.#grants.check(migrationId, destinationBlocks);
    const found = this.#sourceOf(order);
    const { process, pool, generation } = found;
    const startMs = performance.now();
    const address = pool.memory === "none" ? null : BigInt(pool.address);
    const isNear = isNeighbour(process, this.#args.process);
    const ucx = isNear || address === null ? null : { ...found.ucx!, generation, address };
    const source: PullOrder["source"] = { process, address, ucx, ipcHandle: pool.ipcHandle };
    if (address !== null) await this.#puller.pull({ ...order, source });
    if (address !== null && !this.#known.has(generation)) {
      if (this.#known.size >= MAX_KNOWN) this.#known.clear();
      this.#known.add(generation);
      const bytes = sourceBlocks.length * blockBytes(pool.layout);
      await this.#logPath(sourceId, source, bytes / (performance.now() - startMs) / 1e6);
    }
    return { data: null };
  }

  /** Makes progress for a destination on another host while `action` is under way. */
  async #serveDuring(action: Promise<void>): Promise<void> {
    await (this.#thread?.serveDuring(action) ?? action);
  }

  /** Says by which way the first blocks of a source came. A silent fall to TCP would stay unnoticed. */
  async #logPath(
    sourceId: InstanceId,
    { ucx, ipcHandle }: PullOrder["source"],
    gbPerS: number,
  ): Promise<void> {
    const speed = `${gbPerS.toFixed(2)} GB/s`;
    if (ucx === null) {
      const way = ipcHandle === undefined ? "process_vm_readv" : "CUDA IPC";
      log.info(`KV blocks of ${sourceId} come out of its memory (${way}): ${speed}`);
      return;
    }
    const transports = await this.#thread?.transports(ucx).catch(() => []) ?? [];
    const message = `KV blocks of ${sourceId} come by UCX (${transports.join(", ")}): ${speed}`;
    const isTcp = transports.length > 0 && transports.every((name) => name.startsWith("tcp"));
    if (isTcp) log.warn(`${message}. UCX has found no RDMA between the hosts`);
    else log.info(message);
  }

  /** @throws {UnavailableError} blocks of this source cannot be pulled */
  #sourceOf({ sourceId, generation, sourceBlocks }: BlockPull): NamingEntry {
    const { naming, process, pool, model } = this.#args;
    const found = naming.read({ instanceId: sourceId, generation });
    if (found === null) {
      throw new UnavailableError(
        `${sourceId} has no entry in the naming directory ${naming.path}: it has ended or started anew`,
      );
    }
    const isFar = !isNeighbour(found.process, process);
    if (pool.memory === "host" && isFar) this.#checkUcx(found);
    if (pool.memory === "device" && isFar) {
      throw new UnavailableError(
        `${sourceId} runs on another host or in another container (${found.process.hostname}, and ` +
          `this is ${process.hostname}): cuda_ipc moves blocks within one host. ` +
          "Choose --migration-backend gloo, nccl or rayrpc",
      );
    }
    const difference = model !== found.model
      ? `the model is ${model} here and ${found.model} there`
      : layoutDifference(pool.layout, found.pool.layout);
    if (difference !== null) {
      throw new UnavailableError(`KV pools differ: ${difference} (${sourceId})`);
    }
    if (pool.memory !== found.pool.memory) {
      throw new UnavailableError(
        `the KV pool is in memory "${pool.memory}" here and "${found.pool.memory}" there (${sourceId})`,
      );
    }
    const missing = sourceBlocks.find((block) => block >= found.pool.numBlocks);
    if (missing === undefined) return found;
    throw new RequestError(
      `block ${missing} of a KV pool of ${found.pool.numBlocks} (${sourceId})`,
    );
  }

  /** @throws {UnavailableError} UCX is not open at both ends */
  #checkUcx({ instanceId, process: { hostname }, ucx }: NamingEntry): void {
    const here = this.#entry;
    if (here.ucx !== null && ucx !== null) return;
    const without = [here, { instanceId, ucx }].filter((end) => end.ucx === null);
    throw new UnavailableError(
      `${instanceId} runs on another host or in another container (${hostname}, and this is ` +
        `${here.process.hostname}): that needs UCX, which ` +
        `${without.map((end) => end.instanceId).join(" and ")} did not open (the log says why). ` +
        `${libraries.ucp.install} Or choose --migration-backend gloo or rayrpc`,
    );
  }
}
