import { UnavailableError } from "../../core/errors.ts";
import type {
  FailedPeer,
  MigrationGroup,
  MigrationId,
  TransferStatistics,
} from "../../core/protocol/migration.ts";
import type { TransferOptions } from "../../core/options.ts";
import type { BlocksInFlight } from "../../instance/engine/block_manager.ts";
import { layerBytes, layoutDifference } from "../../kv/layout.ts";
import type { MappedPool } from "../../kv/pool/pool.ts";
import type { BlockTransfer, MigrationBackend } from "../../kv/transfer/backend.ts";
import { type BlockRun, type TransferRound, transferRounds } from "../../kv/transfer/rounds.ts";
import { checkLists, checkStillWanted } from "../../kv/transfer/transfer_checks.ts";
import { WriteGrants } from "../../kv/transfer/write_grants.ts";
import type { SimNetwork, SimNode } from "../network/sim_bus.ts";
import type { SimGroups, SimMember } from "./sim_group.ts";

/** One in this many rounds takes much longer than the others. */
const SLOW_ROUND_PERIOD = 8;
const SLOW_ROUND_FACTOR = 30;
/** Pause before a blocked link is tried again. */
const RETRY_MS = 50;

/** Memory of a process that other processes may write. */
interface OpenPool {
  readonly pool: MappedPool;
  /** Permissions of rounds to write, when they end. */
  readonly grants: WriteGrants;
  /** Permissions of rounds to begin: a revocation ends these first. */
  readonly newRounds: WriteGrants;
}

/** A round under way, as its source or its destination sees it. */
interface RoundUnderWay {
  readonly node: string;
  readonly migrationId: MigrationId;
  readonly blocks: readonly number[];
}

/**
 * Moves KV blocks between the instances of a simulated cluster, as slowly as the network, and with as
 * many failures. It behaves as badly as the contract of migration backends allows. A round reads when
 * it begins and writes when it ends. Until it is revoked it may write, even if it was aborted, or if its
 * source or destination is dead or hangs. And a revocation takes a while.
 */
export class SimFabric {
  readonly #pools = new Map<string, OpenPool>();
  /** Rounds by node: those that read blocks there, and those that may still write blocks there. */
  readonly reads = new Set<RoundUnderWay>();
  readonly writes = new Set<RoundUnderWay>();

  /**
   * @param onRound called when a round begins
   * @param groups null if the migration backend needs no group
   */
  constructor(
    readonly network: SimNetwork,
    readonly options: TransferOptions,
    readonly onRound: (from: string, to: string) => void,
    readonly groups: SimGroups | null = null,
  ) {}

  /** Blocks of a node that rounds read or may write: they must not be reused. */
  inFlight(name: string): BlocksInFlight {
    const here = ({ node }: RoundUnderWay) => node === name;
    const lands = (round: RoundUnderWay) => mayLand(round, this.#pools.get(name));
    return {
      read: [...this.reads].filter(here).flatMap(({ blocks }) => blocks),
      written: [...this.writes].filter(here).filter(lands).flatMap(({ blocks }) => blocks),
    };
  }

  roundMs(from: string, to: string): number {
    const isSlow = this.network.random.below(SLOW_ROUND_PERIOD) === 0;
    return this.network.delayMs(from, to) * (isSlow ? SLOW_ROUND_FACTOR : 1);
  }

  open(node: SimNode, pool: MappedPool): MigrationBackend {
    const grants = new WriteGrants(pool.numBlocks), newRounds = new WriteGrants(pool.numBlocks);
    const open = { pool, grants, newRounds };
    this.#pools.set(node.name, open);
    const member = this.groups?.open(node) ?? null;
    return member ? new GroupedBackend(this, node, open, member) : new SimBackend(this, node, open);
  }

  /** A process has ended, and its memory is gone. */
  close(name: string): void {
    this.#pools.delete(name);
    this.groups?.close(name);
  }

  get(name: string): OpenPool | undefined {
    return this.#pools.get(name);
  }
}

class SimBackend implements MigrationBackend {
  readonly name = "simulated";
  readonly endpoint: { readonly node: string };
  #isClosed = false;

  constructor(
    private readonly fabric: SimFabric,
    protected readonly node: SimNode,
    private readonly own: OpenPool,
  ) {
    this.endpoint = { node: node.name };
  }

  get isReady(): boolean {
    return !this.#isClosed;
  }

  // deno-lint-ignore require-await -- an error must become a rejection
  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    this.own.grants.grant(migrationId, blocks);
    this.own.newRounds.grant(migrationId, blocks);
  }

  /** Rounds under way may write until the revocation is over. */
  revoke(migrationId: MigrationId): Promise<void> {
    const { name, clock } = this.node;
    this.own.newRounds.revoke(migrationId);
    return new Promise((resolve) => {
      clock.after(this.fabric.roundMs(name, name), () => {
        this.own.grants.revoke(migrationId);
        resolve();
      });
    });
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { options: { migrationBufferBlocks, migrationNumLayers } } = this.fabric;
    const { sourceBlocks, destinationBlocks } = transfer;
    const { layout } = this.own.pool;
    const startMs = this.node.clock.nowMs();
    const statistics = { bytes: 0, descriptors: 0, rounds: 0 };
    const limits = { bufferBlocks: migrationBufferBlocks, numLayers: migrationNumLayers };
    checkLists(transfer);
    for (
      const round of transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, limits)
    ) {
      await this.#untilPassable(transfer, signal);
      await this.#copy(round, transfer, signal);
      statistics.bytes += round.numBlocks * round.numLayers * layerBytes(layout);
      statistics.descriptors += round.runs.length;
      statistics.rounds++;
    }
    checkStillWanted(transfer, signal, this.node.clock);
    return { ...statistics, transferMs: this.node.clock.nowMs() - startMs };
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.fabric.close(this.node.name);
    return Promise.resolve();
  }

  /** @throws {UnavailableError} this end is closed, or the destination has no memory to write to */
  async #untilPassable(transfer: BlockTransfer, signal: AbortSignal): Promise<void> {
    const { network } = this.fabric;
    const { migrationId, destinationBlocks } = transfer;
    for (;;) {
      checkStillWanted(transfer, signal, this.node.clock);
      if (this.#isClosed) throw new UnavailableError("the backend is closed");
      const { pool, newRounds } = this.#destinationOf(transfer);
      const difference = layoutDifference(this.own.pool.layout, pool.layout);
      if (difference) throw new UnavailableError(`KV pools differ: ${difference}`);
      newRounds.check(migrationId, destinationBlocks);
      if (network.canPass(this.node.name, transfer.endpoint.node as string)) return;
      await new Promise<void>((resolve) => this.node.clock.after(RETRY_MS, resolve));
    }
  }

  #destinationOf({ endpoint, destination }: BlockTransfer): OpenPool {
    const open = this.fabric.get(endpoint.node as string);
    if (!open) throw new UnavailableError(`${destination.instanceId} has no pool`);
    return open;
  }

  #copy(round: TransferRound, transfer: BlockTransfer, signal: AbortSignal): Promise<void> {
    const landing = this.#land(round, transfer);
    const { migrationId } = transfer;
    const blocks = blocksOf(round, ({ sourceBlock }) => sourceBlock);
    const read = { node: this.node.name, migrationId, blocks };
    this.fabric.reads.add(read);
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.fabric.reads.delete(read);
        reject(new UnavailableError("the transfer was aborted"));
      };
      signal.addEventListener("abort", abort);
      // A paused process sees the result when it goes on.
      const settle = (act: () => void) =>
        this.node.clock.soon(() => {
          this.fabric.reads.delete(read);
          act();
        });
      landing.then(() => settle(resolve), (error) => settle(() => reject(error)))
        .finally(() => signal.removeEventListener("abort", abort));
    });
  }

  #land(round: TransferRound, transfer: BlockTransfer): Promise<void> {
    const { runs, firstLayer, numLayers } = round;
    const copies: { readonly block: number; readonly bytes: Uint8Array }[] = [];
    for (const { sourceBlock, destinationBlock, numBlocks } of runs) {
      for (let i = 0; i < numBlocks; i++) {
        const bytes = this.own.pool.run(sourceBlock + i, firstLayer, numLayers).slice();
        copies.push({ block: destinationBlock + i, bytes });
      }
    }
    const { network } = this.fabric;
    const to = transfer.endpoint.node as string;
    const delayMs = this.fabric.roundMs(this.node.name, to);
    this.fabric.onRound(this.node.name, to);
    const { migrationId } = transfer;
    const blocks = blocksOf(round, ({ destinationBlock }) => destinationBlock);
    const write = { node: to, migrationId, blocks };
    this.fabric.writes.add(write);
    return new Promise((resolve, reject) => {
      network.clock.after(delayMs, () => {
        this.fabric.writes.delete(write);
        try {
          const { pool, grants } = this.#destinationOf(transfer);
          grants.check(migrationId, blocks);
          for (const { block, bytes } of copies) pool.run(block, firstLayer, numLayers).set(bytes);
          resolve();
        } catch (error) {
          reject(error);
        }
      });
    });
  }
}

/** As above, for backends that need a group: only members of one group send to each other. */
class GroupedBackend extends SimBackend {
  #isInGroup = false;

  constructor(
    fabric: SimFabric,
    node: SimNode,
    own: OpenPool,
    private readonly member: SimMember,
  ) {
    super(fabric, node, own);
  }

  override get isReady(): boolean {
    return this.#isInGroup && super.isReady;
  }

  async join(group: MigrationGroup): Promise<readonly FailedPeer[]> {
    const failedPeers = await this.member.join(group);
    this.#isInGroup = true;
    return failedPeers;
  }

  override async send(
    transfer: BlockTransfer,
    signal: AbortSignal,
  ): Promise<TransferStatistics> {
    checkStillWanted(transfer, signal, this.node.clock);
    await this.member.connectTo(transfer.endpoint.node as string, transfer.deadlineMs, signal);
    return await super.send(transfer, signal);
  }
}

function blocksOf({ runs }: TransferRound, firstOf: (run: BlockRun) => number): number[] {
  return runs.flatMap((run) => Array.from({ length: run.numBlocks }, (_, i) => firstOf(run) + i));
}

function mayLand({ migrationId, blocks }: RoundUnderWay, open: OpenPool | undefined): boolean {
  try {
    open?.grants.check(migrationId, blocks);
    return open !== undefined;
  } catch {
    return false;
  }
}
