import { UnavailableError } from "../core/errors.ts";
import type { TransferStatistics } from "../core/messages.ts";
import type { TransferOptions } from "../core/options.ts";
import { layerBytes, layoutDifference } from "../kv/layout.ts";
import type { KvPool } from "../kv/pool.ts";
import type { BlockTransfer, MigrationBackend } from "../kv/transfer/backend.ts";
import { type TransferRound, transferRounds } from "../kv/transfer/rounds.ts";
import type { SimNetwork, SimNode } from "./sim_bus.ts";

/** One round in so many takes much longer than the others. */
const SLOW_ROUND_PERIOD = 8;
const SLOW_ROUND_FACTOR = 30;
/** Pause before a way through which nothing passes is tried again. */
const RETRY_MS = 50;

/**
 * What KV blocks go through between the instances of a simulated cluster: as slow as the network, and
 * as often broken. It leaves a migration as little as the contract of backends allows: a round reads
 * as it begins and writes as it ends, and one that is under way when it is aborted still lands before
 * `send` settles.
 */
export class SimFabric {
  readonly #pools = new Map<string, KvPool>();

  /** @param onRound a round begins */
  constructor(
    readonly network: SimNetwork,
    readonly options: TransferOptions,
    readonly onRound: (from: string, to: string) => void,
  ) {}

  roundMs(from: string, to: string): number {
    const isSlow = this.network.random.below(SLOW_ROUND_PERIOD) === 0;
    return this.network.delayMs(from, to) * (isSlow ? SLOW_ROUND_FACTOR : 1);
  }

  open(node: SimNode, pool: KvPool): MigrationBackend {
    this.#pools.set(node.name, pool);
    return new SimBackend(this, node, pool);
  }

  /** The process is gone, and its memory with it. */
  close(name: string): void {
    this.#pools.delete(name);
  }

  get(name: string): KvPool | undefined {
    return this.#pools.get(name);
  }
}

class SimBackend implements MigrationBackend {
  readonly name = "simulated";
  readonly endpoint: { readonly node: string };
  #isClosed = false;

  constructor(
    private readonly fabric: SimFabric,
    private readonly node: SimNode,
    private readonly pool: KvPool,
  ) {
    this.endpoint = { node: node.name };
  }

  get isReady(): boolean {
    return !this.#isClosed;
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { options: { migrationBufferBlocks, migrationNumLayers } } = this.fabric;
    const { sourceBlocks, destinationBlocks } = transfer;
    const { layout } = this.pool;
    const startMs = this.node.clock.nowMs();
    const statistics = { bytes: 0, descriptors: 0, rounds: 0 };
    const limits = { bufferBlocks: migrationBufferBlocks, numLayers: migrationNumLayers };
    for (
      const round of transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, limits)
    ) {
      await this.#untilPassable(transfer, signal);
      await this.#copy(round, transfer);
      statistics.bytes += round.numBlocks * round.numLayers * layerBytes(layout);
      statistics.descriptors += round.runs.length;
      statistics.rounds++;
    }
    if (signal.aborted) throw new UnavailableError("the transfer was aborted");
    return { ...statistics, transferMs: this.node.clock.nowMs() - startMs };
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.fabric.close(this.node.name);
    return Promise.resolve();
  }

  /** @throws {UnavailableError} nothing may be written any more, or there is nowhere to write to */
  async #untilPassable(transfer: BlockTransfer, signal: AbortSignal): Promise<void> {
    const { network } = this.fabric;
    for (;;) {
      if (signal.aborted) throw new UnavailableError("the transfer was aborted");
      if (this.#isClosed) throw new UnavailableError("the backend is closed");
      const to = this.#destinationOf(transfer);
      const difference = layoutDifference(this.pool.layout, to.layout);
      if (difference) throw new UnavailableError(`KV pools differ: ${difference}`);
      if (network.canPass(this.node.name, transfer.endpoint.node as string)) return;
      await new Promise<void>((resolve) => this.node.clock.after(RETRY_MS, resolve));
    }
  }

  /** Memory of a process that hangs can be written; of one that is dead, not. */
  #destinationOf({ endpoint, destinationId, deadlineMs }: BlockTransfer): KvPool {
    // Also as a round lands: this process may have hung while it was under way.
    if (this.node.clock.nowMs() > deadlineMs) {
      throw new UnavailableError("the transfer's deadline has passed");
    }
    const pool = this.fabric.get(endpoint.node as string);
    if (!pool) throw new UnavailableError(`${destinationId} has no pool`);
    return pool;
  }

  #copy({ runs, firstLayer, numLayers }: TransferRound, transfer: BlockTransfer): Promise<void> {
    const copies: { readonly block: number; readonly bytes: Uint8Array }[] = [];
    for (const { sourceBlock, destinationBlock, numBlocks } of runs) {
      for (let i = 0; i < numBlocks; i++) {
        const bytes = this.pool.run(sourceBlock + i, firstLayer, numLayers).slice();
        copies.push({ block: destinationBlock + i, bytes });
      }
    }
    const to = transfer.endpoint.node as string;
    const delayMs = this.fabric.roundMs(this.node.name, to);
    this.fabric.onRound(this.node.name, to);
    return new Promise((resolve, reject) => {
      this.node.clock.after(delayMs, () => {
        try {
          const pool = this.#destinationOf(transfer);
          for (const { block, bytes } of copies) pool.run(block, firstLayer, numLayers).set(bytes);
          resolve();
        } catch (error) {
          reject(error);
        }
      });
    });
  }
}
