import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import {
  type Claim,
  type EventCalls,
  type NcclCalls,
  TransferRefusedError,
} from "../../../../ffi/nccl/pair.ts";
import type { Clock } from "../../../core/clock.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import type {
  BackendCall,
  FailedPeer,
  MigrationDestination,
  MigrationGroup,
  MigrationId,
  TransferStatistics,
} from "../../../core/protocol/migration.ts";
import { blockBytes, type KvLayout } from "../../layout.ts";
import type { PoolShard } from "../../pool/pool.ts";
import { checkRun } from "../../pool/pool_bounds.ts";
import type { BackendMessage, BlockTransfer, MigrationBackend } from "../backend.ts";
import type { BackendLinks } from "../backend_kind.ts";
import { transferRounds } from "../rounds.ts";
import { checkLists, checkStillWanted } from "../transfer_checks.ts";
import { WriteGrants } from "../write_grants.ts";
import { endpointProblem, type NcclEndpoint } from "./endpoint.ts";
import { IncomingPair } from "./incoming_pair.ts";
import { OutgoingPair } from "./outgoing_pair.ts";
import { type Caller, parseCaller, parseNote } from "./wire.ts";

/** Most idle communicators for sending; each holds tens of MiB of device memory. */
const MAX_OUTGOING = 8;
/** Most processes that send to this one. */
const MAX_INCOMING = 256;
const CLOSE_MS = 1_000;

/** Blocks on one device: all of a pool, or what one of its devices has of them. */
export interface NcclPool extends PoolShard {
  readonly layout: KvLayout;
  readonly numBlocks: number;
}

export interface NcclBackendArgs {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly pool: NcclPool;
  /** Which device of several, for `ShardedNcclBackend`. */
  readonly shard?: number;
  readonly clock: Clock;
  /** Closed with the backend. */
  readonly links: BackendLinks;
  readonly nccl: NcclCalls;
  /** Makes events and streams on the pool's device. */
  readonly cuda: EventCalls & Pick<Cuda, "createStream" | "destroyStream">;
  /** UUID of the pool's device, "" if it is not known. */
  readonly device: string;
}

interface Outgoing {
  readonly instanceId: InstanceId;
  readonly pair: OutgoingPair;
}

/** A transfer whose blocks NCCL may write. */
interface Writing {
  readonly migrationId: MigrationId;
  readonly pair: IncomingPair;
  readonly released: PromiseWithResolvers<void>;
}

/**
 * Sends whole blocks by NCCL, straight from one pool to the other; `ffi/nccl/pair.ts` has the rules. The
 * first transfer between two instances in a direction makes a communicator. The control channel is the bus
 * (`wire.ts`). A transfer is one round, whatever the limits: there is no staging buffer.
 */
export class NcclBackend implements MigrationBackend {
  readonly name = "nccl";
  readonly endpoint: NcclEndpoint & Record<string, unknown>;
  readonly calls = {
    migrate_backend: ({ data: { topic, data } }: BackendMessage<BackendCall>) =>
      topic === "hear" ? this.#answerSource(data) : this.#hearSource(data),
  };
  readonly #args: NcclBackendArgs;
  readonly #caller: Caller;
  readonly #grants: WriteGrants;
  readonly #failure = Promise.withResolvers<string>();
  /** By address, the least recently used first. */
  readonly #outgoing = new Map<string, Outgoing>();
  /** By instance and boot. */
  readonly #incoming = new Map<string, { readonly caller: Caller; readonly pair: IncomingPair }>();
  readonly #writing = new Set<Writing>();
  #members: MigrationGroup["members"] | null = null;
  #isClosed = false;

  constructor(args: NcclBackendArgs) {
    const { instanceId, model, pool, device, shard } = args;
    this.#args = args;
    this.#caller = { instanceId, boot: crypto.randomUUID(), shard };
    this.#grants = new WriteGrants(pool.numBlocks);
    this.endpoint = { model, layout: pool.layout, device };
  }

  get isReady(): boolean {
    return this.#members !== null && !this.#isClosed;
  }

  /** An abort of NCCL did not return: blocks stay in use until the process ends. */
  get failed(): Promise<string> {
    return this.#failure.promise;
  }

  /**
   * Takes the members that this instance may exchange blocks with. An instance that has left the group
   * counts as dead: the blocks of its unfinished transfers are free.
   */
  join(group: MigrationGroup): Promise<readonly FailedPeer[]> {
    this.#members = group.members;
    const ids = new Set(group.members.map(({ instanceId }) => instanceId));
    for (const [key, { caller, pair }] of this.#incoming) {
      if (ids.has(caller.instanceId)) continue;
      pair.peerDied();
      this.#incoming.delete(key);
      void this.#end(pair);
    }
    for (const [address, { instanceId, pair }] of this.#outgoing) {
      if (ids.has(instanceId)) continue;
      this.#outgoing.delete(address);
      pair.lose(new Error(`instance ${instanceId} has left the migration group`));
      void this.#end(pair);
    }
    const failed: FailedPeer[] = [];
    for (const { instanceId, endpoint } of group.members) {
      if (instanceId === this.#args.instanceId) continue;
      const reason = endpointProblem(this.endpoint, endpoint);
      if (reason !== null) failed.push({ instanceId, reason });
    }
    return Promise.resolve(failed);
  }

  // deno-lint-ignore require-await -- an error must be a rejection
  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    this.#grants.grant(migrationId, blocks);
  }

  async revoke(migrationId: MigrationId): Promise<void> {
    this.#grants.revoke(migrationId);
    const found = [...this.#writing].filter((writing) => writing.migrationId === migrationId);
    for (const { pair } of found) pair.stop(new Error(`migration ${migrationId} was revoked`));
    await Promise.all(found.map(({ released }) => released.promise));
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { pool: { layout }, clock } = this.#args;
    const { migrationId, sourceBlocks, destinationBlocks, deadlineMs } = transfer;
    const startMs = clock.nowMs();
    checkLists(transfer);
    this.#checkOpen(transfer, signal);
    for (const block of sourceBlocks) this.#checkBlock(block);
    const problem = endpointProblem(this.endpoint, transfer.endpoint);
    if (problem !== null) throw new UnavailableError(`NCCL cannot move these blocks: ${problem}`);
    const limits = { bufferBlocks: Infinity, numLayers: layout.numLayers };
    const [round] = transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, limits);
    if (round !== undefined) {
      const note = {
        migrationId,
        runs: round.runs.map(({ destinationBlock, numBlocks }) => [destinationBlock, numBlocks]),
      };
      const runs = round.runs.map(({ sourceBlock, numBlocks }) =>
        this.#run(sourceBlock, numBlocks)
      );
      try {
        const pair = this.#pairTo(transfer.destination);
        await pair.send(runs, { note, leftMs: deadlineMs - startMs, signal });
      } catch (error) {
        this.#checkOpen(transfer, signal);
        throw unavailable(error);
      }
    }
    this.#checkOpen(transfer, signal);
    return {
      bytes: sourceBlocks.length * blockBytes(layout),
      descriptors: round?.runs.length ?? 0,
      rounds: round === undefined ? 0 : 1,
      transferMs: clock.nowMs() - startMs,
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const all = [...this.#outgoing.values(), ...this.#incoming.values()];
    await Promise.all(all.map(({ pair }) => this.#end(pair)));
    await this.#args.links.close();
  }

  /** Closes a pair, and gives its stream back. A dead pair keeps it: `failed` has told of that. */
  async #end(pair: OutgoingPair | IncomingPair): Promise<void> {
    try {
      await pair.close(CLOSE_MS);
    } catch {
      return;
    }
    this.#args.cuda.destroyStream(pair.stream);
  }

  #checkOpen(transfer: BlockTransfer, signal: AbortSignal): void {
    checkStillWanted(transfer, signal, this.#args.clock);
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
    if (this.#members === null) throw new UnavailableError("the instance is in no migration group");
  }

  #checkBlock(block: number): void {
    const { pool: { layout, numBlocks } } = this.#args;
    checkRun(layout, numBlocks, block, 0, layout.numLayers);
  }

  #run(block: number, numBlocks: number) {
    const { pool: { address, layout } } = this.#args;
    const bytes = blockBytes(layout);
    return { address: address + BigInt(block * bytes), bytes: numBlocks * bytes };
  }

  #pairTo({ instanceId, address }: MigrationDestination): OutgoingPair {
    const { nccl, cuda, clock, links } = this.#args;
    let outgoing = this.#outgoing.get(address);
    if (outgoing === undefined) {
      const stream = cuda.createStream(); // of the lowest priority: decoding comes first
      const caller = this.#caller;
      const pair = new OutgoingPair({ nccl, cuda, clock, stream, caller, links, address });
      pair.died.then(this.#failure.resolve);
      outgoing = { instanceId, pair };
    }
    this.#outgoing.delete(address);
    this.#outgoing.set(address, outgoing);
    this.#evict();
    return outgoing.pair;
  }

  /** Closes the communicator that has sent nothing for longest. */
  #evict(): void {
    if (this.#outgoing.size <= MAX_OUTGOING) return;
    const found = [...this.#outgoing].find(([, { pair }]) => pair.isIdle);
    if (found === undefined) return;
    const [address, { pair }] = found;
    this.#outgoing.delete(address);
    void this.#end(pair);
  }

  #pairFrom(data: unknown): IncomingPair {
    const caller = parseCaller(data);
    const { instanceId, boot } = caller;
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
    if (!this.#members?.some((member) => member.instanceId === instanceId)) {
      throw new UnavailableError(
        `instance ${instanceId} is not in this instance's migration group`,
      );
    }
    const key = JSON.stringify([instanceId, boot]);
    const known = this.#incoming.get(key);
    if (known !== undefined) return known.pair;
    if (this.#incoming.size >= MAX_INCOMING) {
      throw new UnavailableError(`${MAX_INCOMING} processes send to this instance already`);
    }
    const { nccl, cuda, clock } = this.#args;
    const pair: IncomingPair = new IncomingPair({
      ...{ nccl, cuda, clock, stream: cuda.createStream() },
      claim: (note, bytes) => this.#claim(pair, note, bytes),
    });
    pair.died.then(this.#failure.resolve);
    this.#incoming.set(key, { caller, pair });
    return pair;
  }

  #hearSource(data: unknown): BackendMessage {
    this.#pairFrom(data).tell((data as { message: unknown }).message);
    return { data: null };
  }

  async #answerSource(data: unknown): Promise<BackendMessage> {
    return { data: await this.#pairFrom(data).hear() };
  }

  /** @throws {UnavailableError} the migration may not write these blocks */
  #claim(pair: IncomingPair, data: unknown, bytes: readonly number[]): Claim {
    const { migrationId, runs } = parseNote(data);
    if (runs.length !== bytes.length) throw new UnavailableError("other runs than byte counts");
    for (const [block, numBlocks] of runs) {
      this.#checkBlock(block);
      this.#checkBlock(block + numBlocks - 1);
    }
    const count = runs.reduce((sum, [, numBlocks]) => sum + numBlocks, 0);
    if (count > this.#args.pool.numBlocks) throw new UnavailableError("more blocks than there are");
    this.#grants.check(migrationId, runs.flatMap(blocksOf));
    const writing = { migrationId, pair, released: Promise.withResolvers<void>() };
    this.#writing.add(writing);
    return {
      runs: runs.map(([block, numBlocks]) => this.#run(block, numBlocks)),
      release: () => {
        this.#writing.delete(writing);
        writing.released.resolve();
      },
    };
  }
}

function blocksOf([block, numBlocks]: readonly [number, number]): number[] {
  return Array.from({ length: numBlocks }, (_, i) => block + i);
}

function unavailable(error: unknown): Error {
  if (error instanceof RangeError || error instanceof UnavailableError) return error;
  if (error instanceof TransferRefusedError) return new UnavailableError(error.message);
  return new UnavailableError(`NCCL: ${error instanceof Error ? error.message : String(error)}`);
}
