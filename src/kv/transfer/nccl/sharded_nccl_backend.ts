import type { Clock } from "../../../core/clock.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type {
  BackendCall,
  FailedPeer,
  MigrationGroup,
  MigrationId,
  TransferStatistics,
} from "../../../core/protocol/migration.ts";
import type { KvLayout } from "../../layout.ts";
import type { BackendMessage, BlockTransfer, MigrationBackend } from "../backend.ts";
import { endpointProblem, type NcclEndpoint } from "./endpoint.ts";
import type { NcclBackend } from "./nccl_backend.ts";
import { parseShard } from "./wire.ts";

/** What a device's backend must do here. */
export type ShardBackend = Pick<
  NcclBackend,
  ("endpoint" | "isReady" | "failed" | "calls" | "join" | "grant" | "revoke" | "send" | "close")
>;

export interface ShardedNcclArgs {
  readonly model: string;
  /** Of whole blocks. */
  readonly layout: KvLayout;
  readonly clock: Clock;
  /** A backend for each device, in their order. */
  readonly backends: readonly ShardBackend[];
}

/** What peers must know of an instance whose blocks are divided among devices. */
interface ShardedEndpoint extends NcclEndpoint {
  readonly shards: readonly NcclEndpoint[];
}

/**
 * Sends blocks that are divided among several devices: each device sends its part to the device of the same place
 * at the destination, by a communicator of the two. All parts go at once.
 */
export class ShardedNcclBackend implements MigrationBackend {
  readonly name = "nccl";
  readonly endpoint: ShardedEndpoint & Record<string, unknown>;
  readonly failed: Promise<string>;
  readonly calls = {
    migrate_backend: (message: BackendMessage<BackendCall>) => {
      const { backends } = this.#args;
      const shard = parseShard(message.data.data, backends.length);
      return backends[shard].calls.migrate_backend(message);
    },
  };
  readonly #args: ShardedNcclArgs;

  constructor(args: ShardedNcclArgs) {
    const { model, layout, backends } = args;
    this.#args = args;
    const shards = backends.map(({ endpoint }) => endpoint);
    // The devices are compared one by one.
    this.endpoint = { model, layout, device: "", shards };
    this.failed = Promise.race(backends.map(({ failed }) => failed));
  }

  get isReady(): boolean {
    return this.#args.backends.every(({ isReady }) => isReady);
  }

  /** An instance can be sent to if each of its devices can. */
  async join({ members, ...group }: MigrationGroup): Promise<readonly FailedPeer[]> {
    const failed = new Map<string, FailedPeer>();
    for (const { instanceId, endpoint } of members) {
      const reason = this.#problem(endpoint);
      if (reason !== null) failed.set(instanceId, { instanceId, reason });
    }
    const joined = await Promise.all(this.#args.backends.map((backend, shard) => {
      const ofShard = members.filter(({ instanceId }) => !failed.has(instanceId))
        .map((member) => ({ ...member, endpoint: shardOf(member.endpoint, shard) }));
      return backend.join({ ...group, members: ofShard });
    }));
    for (const peer of joined.flat()) failed.set(peer.instanceId, peer);
    return [...failed.values()];
  }

  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    await Promise.all(this.#args.backends.map((backend) => backend.grant(migrationId, blocks)));
  }

  async revoke(migrationId: MigrationId): Promise<void> {
    await Promise.all(this.#args.backends.map((backend) => backend.revoke(migrationId)));
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { backends, clock } = this.#args, startMs = clock.nowMs();
    const problem = this.#problem(transfer.endpoint);
    if (problem !== null) throw new UnavailableError(`NCCL cannot move these blocks: ${problem}`);
    const failure = new AbortController();
    const either = AbortSignal.any([signal, failure.signal]);
    const sends = backends.map((backend, shard) => {
      const endpoint = shardOf(transfer.endpoint, shard);
      return backend.send({ ...transfer, endpoint }, either);
    });
    try {
      const sent = await Promise.all(sends);
      return {
        bytes: sent.reduce((sum, { bytes }) => sum + bytes, 0),
        descriptors: sent[0].descriptors, // all send the same runs of blocks
        rounds: sent[0].rounds,
        transferMs: clock.nowMs() - startMs,
      };
    } catch (error) {
      failure.abort(error);
      await Promise.allSettled(sends); // they read the blocks until then
      throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#args.backends.map((backend) => backend.close()));
  }

  /** Why blocks cannot be exchanged with an instance; null when they can. */
  #problem(endpoint: unknown): string | null {
    const problem = endpointProblem(this.endpoint, endpoint);
    if (problem !== null) return problem;
    const { shards } = endpoint as Partial<ShardedEndpoint>, { backends } = this.#args;
    if (Array.isArray(shards) && shards.length === backends.length) return null;
    return `its blocks are not on ${backends.length} devices`;
  }
}

/** The endpoint of a device, of one that was checked. */
function shardOf(endpoint: unknown, shard: number): Record<string, unknown> {
  return { ...(endpoint as ShardedEndpoint).shards[shard] };
}
