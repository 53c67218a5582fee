import { fromBinary } from "@bufbuild/protobuf";
import type { Clock } from "../../../core/clock.ts";
import { UnavailableError } from "../../../core/errors.ts";
import { isLoopback } from "../../../core/hosts.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import type {
  FailedPeer,
  MigrationGroup,
  MigrationGroupMember,
  MigrationId,
  TransferStatistics,
} from "../../../core/protocol/migration.ts";
import { blockBytes, type KvLayout, layoutDifference } from "../../layout.ts";
import { failureOf, type KvPool } from "../../pool/pool.ts";
import { checkRun } from "../../pool/pool_bounds.ts";
import type { BlockTransfer, MigrationBackend, TransferLimits } from "../backend.ts";
import type { HostSecurity } from "../backend_kind.ts";
import { limitsWithin } from "../limits.ts";
import { transferRounds } from "../rounds.ts";
import { checkLists, checkStillWanted } from "../transfer_checks.ts";
import { WriteGrants } from "../write_grants.ts";
import { maxDataBytes, maxMessageBytes } from "./envelope.ts";
import { HttpCall, type HttpTarget } from "./http_call.ts";
import { IncomingWrites } from "./incoming_writes.ts";
import { HealthReply_Status as Status, HealthReplySchema } from "./migration_pb.ts";
import { type MessageBuffers, writeRounds } from "./outgoing_write.ts";
import { HEALTH_PATH, MigrationServer } from "./server.ts";

export interface GrpcBackendArgs {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly pool: KvPool;
  readonly limits: TransferLimits;
  readonly clock: Clock;
  /** `--migration-backend-server-address`. */
  readonly listenAt: { readonly hostname: string; readonly port: number };
  /** Where others reach this host, if it listens on all interfaces. */
  readonly advertisedHost: string;
  /** See `BackendContext`. */
  readonly security: HostSecurity | null;
  /** Most time until another member answers. */
  readonly initTimeoutMs: number;
}

/** How other members reach an instance. */
export interface GrpcEndpoint extends HttpTarget {
  readonly model: string;
  readonly layout: KvLayout;
}

/**
 * Sends blocks by calls of `migration.proto` in the Connect protocol over HTTP/1.1: a connection and a call
 * for each transfer. It copies each byte once at each end: a message is read into a buffer that stays in the
 * cache and goes to the socket from there, and likewise at the destination.
 */
export class GrpcBackend implements MigrationBackend {
  readonly name = "grpc";
  readonly endpoint: GrpcEndpoint & Record<string, unknown>;
  readonly #args: GrpcBackendArgs;
  readonly #grants: WriteGrants;
  readonly #limits: TransferLimits;
  readonly #writes: IncomingWrites;
  readonly #server: MigrationServer;
  readonly #closing = new AbortController();
  readonly #spareBuffers: MessageBuffers[] = [];
  readonly #sending = new Set<Promise<void>>();
  #group: MigrationGroup | null = null;
  #bytesSent = 0;
  #writesSent = 0;

  /** @throws {UsageError} it cannot listen there */
  static open(args: GrpcBackendArgs): GrpcBackend {
    return new GrpcBackend(args);
  }

  private constructor(args: GrpcBackendArgs) {
    const { instanceId, model, pool, limits, clock, listenAt, advertisedHost, security } = args;
    this.#args = args;
    this.#grants = new WriteGrants(pool.numBlocks);
    this.#limits = limitsWithin(maxDataBytes(pool.layout), limits, pool.layout);
    this.#writes = new IncomingWrites({ instanceId, pool, grants: this.#grants, clock });
    this.#server = new MigrationServer({
      ...listenAt,
      writes: this.#writes,
      clock,
      security,
      secret: () => this.#group?.secret ?? null,
      health: () => ({ instanceId, status: this.isReady ? Status.SERVING : Status.NOT_SERVING }),
      stats: () => ({
        ...this.#writes.statistics,
        bytesSent: BigInt(this.#bytesSent),
        writesSent: BigInt(this.#writesSent),
      }),
    });
    const isAny = ["0.0.0.0", "::"].includes(listenAt.hostname);
    const host = isAny ? advertisedHost : listenAt.hostname;
    this.endpoint = { host, port: this.#server.port, model, layout: pool.layout };
  }

  get isReady(): boolean {
    return this.#group !== null && !this.#isClosed;
  }

  get failed(): Promise<string> | undefined {
    return failureOf(this.#args.pool);
  }

  get servesAt(): string {
    return addressOf(this.endpoint);
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Takes the group's secret, and asks all other members whether they answer. */
  async join(group: MigrationGroup): Promise<readonly FailedPeer[]> {
    this.#group = group;
    const others = group.members.filter(({ instanceId }) => instanceId !== this.#args.instanceId);
    const reasons = await Promise.all(others.map((member) => this.#problemOf(member)));
    return others.flatMap(({ instanceId }, i) => {
      const reason = reasons[i];
      return reason === null ? [] : [{ instanceId, reason }];
    });
  }

  // deno-lint-ignore require-await -- an error must be a rejection
  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    this.#grants.grant(migrationId, blocks);
  }

  async revoke(migrationId: MigrationId): Promise<void> {
    this.#grants.revoke(migrationId);
    await this.#writes.revoke(migrationId);
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { pool: { layout, numBlocks }, clock } = this.#args;
    const { sourceBlocks, destinationBlocks } = transfer;
    const startMs = clock.nowMs();
    checkLists(transfer);
    for (const block of sourceBlocks) checkRun(layout, numBlocks, block, 0, layout.numLayers);
    const rounds = [
      ...transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, this.#limits),
    ];
    this.#checkOpen(transfer, signal);
    const bytes = sourceBlocks.length * blockBytes(layout);
    if (rounds.length > 0) {
      const target = targetOf(transfer.endpoint);
      if (target === null) {
        throw new UnavailableError(
          `the endpoint of ${transfer.destination.instanceId} is not one of grpc: expected a host ` +
            "and a port",
        );
      }
      await this.#write(target, rounds, transfer, signal);
      this.#bytesSent += bytes;
      this.#writesSent++;
    }
    this.#checkOpen(transfer, signal);
    return {
      bytes,
      descriptors: rounds.reduce((sum, { runs }) => sum + runs.length, 0),
      rounds: rounds.length,
      transferMs: clock.nowMs() - startMs,
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#closing.abort();
    await this.#writes.close();
    await this.#server.close();
    await Promise.allSettled(this.#sending);
  }

  /** Sends until the deadline, an abort or the end of the backend. */
  async #write(
    target: HttpTarget,
    rounds: Parameters<typeof writeRounds>[1],
    transfer: BlockTransfer,
    signal: AbortSignal,
  ): Promise<void> {
    const { instanceId: from, pool, clock, security } = this.#args;
    const late = new AbortController();
    const cancelTimer = clock.after(transfer.deadlineMs - clock.nowMs(), () => late.abort());
    const buffers = this.#spareBuffers.pop() ?? this.#newBuffers();
    const ending = AbortSignal.any([signal, late.signal, this.#closing.signal]);
    const { secret } = this.#group!;
    const sending = writeRounds(
      { from, pool, clock, target, secret, security, buffers },
      rounds,
      transfer,
      ending,
    );
    this.#sending.add(sending);
    try {
      await sending;
    } catch (error) {
      this.#checkOpen(transfer, signal);
      if (late.signal.aborted) throw new UnavailableError("the transfer's deadline has passed");
      const { instanceId } = transfer.destination;
      const { message } = error as Error;
      throw new UnavailableError(`${instanceId} at ${addressOf(target)}: ${message}`);
    } finally {
      cancelTimer();
      this.#sending.delete(sending);
      this.#spareBuffers.push(buffers);
    }
  }

  /** Of page-locked memory where the pool is a device's. */
  #newBuffers(): MessageBuffers {
    const { pool } = this.#args;
    const bytes = maxMessageBytes(pool.layout, pool.numBlocks);
    const both = pool.memory === "device"
      ? pool.allocateStaging(2 * bytes)
      : new Uint8Array(2 * bytes);
    return [both.subarray(0, bytes), both.subarray(bytes)];
  }

  #checkOpen(transfer: BlockTransfer, signal: AbortSignal): void {
    checkStillWanted(transfer, signal, this.#args.clock);
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
    if (this.#group === null) throw new UnavailableError("the instance is in no migration group");
  }

  /** Why no blocks can be sent to a member; null if they can. */
  async #problemOf({ instanceId, endpoint }: MigrationGroupMember): Promise<string | null> {
    const target = targetOf(endpoint);
    if (target === null) return "its endpoint is not one of grpc";
    const { model, layout } = endpoint as Partial<GrpcEndpoint>;
    const own = this.endpoint;
    if (model !== own.model) return `it serves ${model}, and ${this.#args.instanceId} ${own.model}`;
    const difference = layoutDifference(own.layout, layout ?? ({} as KvLayout));
    if (difference !== null) return `KV caches differ: ${difference}`;
    try {
      const answering = await this.#ask(target);
      return answering === instanceId ? null : `${answering} listens at ${addressOf(target)}`;
    } catch (error) {
      const hint = isLoopback(target.host)
        ? ": only its own host reaches this address, see --migration-backend-server-address"
        : "";
      return `${addressOf(target)}: ${(error as Error).message}${hint}`;
    }
  }

  /**
   * The instance that answers there.
   * @throws {Error} none does in time, or it refuses
   */
  async #ask(target: HttpTarget): Promise<InstanceId> {
    const { initTimeoutMs, clock, security } = this.#args;
    const late = new AbortController();
    const cancelTimer = clock.after(initTimeoutMs, () => late.abort());
    const ending = AbortSignal.any([late.signal, this.#closing.signal]);
    try {
      const call = await HttpCall.open(
        target,
        HEALTH_PATH,
        {
          "content-type": "application/proto",
          "content-length": "0",
          "connect-protocol-version": "1",
          ...(security === null ? {} : { authorization: `Bearer ${security.token}` }),
        },
        ending,
        security,
      );
      const { status, body } = await call.answer;
      if (status === 200) return fromBinary(HealthReplySchema, body).instanceId;
      throw new UnavailableError(`it answered with HTTP status ${status}`);
    } catch (error) {
      throw late.signal.aborted ? new UnavailableError("it did not answer in time") : error;
    } finally {
      cancelTimer();
    }
  }
}

/** Null if the endpoint is not of this kind of backend. */
function targetOf(endpoint: Readonly<Record<string, unknown>>): HttpTarget | null {
  const { host, port } = endpoint;
  return typeof host === "string" && typeof port === "number" ? { host, port } : null;
}

function addressOf({ host, port }: HttpTarget): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
