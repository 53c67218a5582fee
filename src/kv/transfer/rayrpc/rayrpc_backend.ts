import type { Clock } from "../../../core/clock.ts";
import { RequestError, UnavailableError } from "../../../core/errors.ts";
import type {
  BlockRound,
  MigrationId,
  TransferStatistics,
} from "../../../core/protocol/migration.ts";
import { blockBytes, layerBytes } from "../../layout.ts";
import { readRunsInto, runBytes, writeRuns } from "../../pool/copy_runs.ts";
import { failureOf, type KvPool } from "../../pool/pool.ts";
import type {
  BackendMessage,
  BlockTransfer,
  MigrationBackend,
  TransferLimits,
} from "../backend.ts";
import type { BackendLinks } from "../backend_kind.ts";
import { limitsWithin } from "../limits.ts";
import { pause, pauseMs, PIECE_BYTES } from "../pace.ts";
import { destinationBlocksOf, sourceRuns, type TransferRound, transferRounds } from "../rounds.ts";
import { checkLists, checkStillWanted, unlessAborted } from "../transfer_checks.ts";
import { WriteGrants } from "../write_grants.ts";

/**
 * Most bytes of a round, even if the limits allow more: gathering a round blocks the instance's main
 * thread, and messages of the bus have a limit.
 */
const MAX_ROUND_BYTES = 1 << 20;
/** Rounds that a transfer sends before the first of them is answered. */
const ROUNDS_UNDER_WAY = 2;
/** A transfer fills one while others are under way. */
const MAX_SPARE_BUFFERS = ROUNDS_UNDER_WAY + 1;

export interface RayRpcBackendArgs {
  readonly pool: KvPool;
  readonly limits: TransferLimits;
  readonly clock: Clock;
  /** Closed with the backend. */
  readonly links: BackendLinks;
}

/**
 * Sends blocks as payloads of calls over the bus of the control plane, one call a round. It needs no
 * group and no thread. It copies each byte twice: into the payload, and from the received frame into the
 * destination's pool. The buffers of both ends serve round after round.
 */
export class RayRpcBackend implements MigrationBackend {
  readonly name = "rayrpc";
  /** Empty: the backend answers at the address where the instance serves. */
  readonly endpoint = {};
  readonly calls = {
    migrate_blocks: (message: BackendMessage<BlockRound>): Promise<BackendMessage<null>> =>
      this.#receive(message),
  };
  readonly #args: RayRpcBackendArgs;
  readonly #grants: WriteGrants;
  readonly #limits: TransferLimits;
  /** Buffers that no message is in: each for the longest round. */
  readonly #spareBuffers: Uint8Array<ArrayBuffer>[] = [];
  /** Writes under way, which take time on a device. */
  readonly #writing = new Map<Promise<void>, MigrationId>();
  #isClosed = false;

  constructor(args: RayRpcBackendArgs) {
    this.#args = args;
    this.#grants = new WriteGrants(args.pool.numBlocks);
    this.#limits = limitsWithin(MAX_ROUND_BYTES, args.limits, args.pool.layout);
  }

  get isReady(): boolean {
    return !this.#isClosed;
  }

  get failed(): Promise<string> | undefined {
    return failureOf(this.#args.pool);
  }

  // deno-lint-ignore require-await -- an error must be a rejection
  async grant(migrationId: MigrationId, blocks: readonly number[]): Promise<void> {
    this.#grants.grant(migrationId, blocks);
  }

  async revoke(migrationId: MigrationId): Promise<void> {
    this.#grants.revoke(migrationId);
    await this.#untilWritten(migrationId);
  }

  async send(transfer: BlockTransfer, signal: AbortSignal): Promise<TransferStatistics> {
    const { pool: { layout }, clock } = this.#args;
    const { sourceBlocks, destinationBlocks, isBackground = false } = transfer;
    const startMs = clock.nowMs();
    checkLists(transfer);
    const limits = this.#limits;
    const rounds = [
      ...transferRounds(sourceBlocks, destinationBlocks, layout.numLayers, limits),
    ];
    if (isBackground) await this.#sendSlowly(rounds, transfer, signal);
    else await this.#sendFast(rounds, transfer, signal);
    this.#checkOpen(transfer, signal);
    return {
      bytes: sourceBlocks.length * blockBytes(layout),
      descriptors: rounds.reduce((sum, { runs }) => sum + runs.length, 0),
      rounds: rounds.length,
      transferMs: clock.nowMs() - startMs,
    };
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#args.links.close();
    await this.#untilWritten();
  }

  /** Gathers the next round while others are under way, so that the connection is never idle. */
  async #sendFast(
    rounds: readonly TransferRound[],
    transfer: BlockTransfer,
    signal: AbortSignal,
  ): Promise<void> {
    const underWay: Promise<void>[] = [];
    for (const round of rounds) {
      this.#checkOpen(transfer, signal);
      const payload = await this.#gather(round);
      if (underWay.length === ROUNDS_UNDER_WAY) await underWay.shift();
      const sending = this.#sendRound(round, payload, transfer, signal);
      sending.catch(() => {});
      underWay.push(sending);
    }
    await Promise.all(underWay);
  }

  /**
   * Pauses between pieces. The time until a piece is answered counts as the time that copying it took. A
   * transfer of less than a piece has no pause, so that it catches up with a request that grows fast.
   */
  async #sendSlowly(
    rounds: readonly TransferRound[],
    transfer: BlockTransfer,
    signal: AbortSignal,
  ): Promise<void> {
    const { pool, clock } = this.#args;
    let remainingBytes = transfer.sourceBlocks.length * blockBytes(pool.layout);
    let pieceBytes = 0, startMs = clock.nowMs();
    for (const round of rounds) {
      this.#checkOpen(transfer, signal);
      const payload = await this.#gather(round);
      await this.#sendRound(round, payload, transfer, signal);
      pieceBytes += payload.length;
      remainingBytes -= payload.length;
      if (pieceBytes < PIECE_BYTES) continue;
      const nowMs = clock.nowMs();
      const pieces = Math.ceil(remainingBytes / pieceBytes);
      const leftMs = transfer.deadlineMs - nowMs;
      await pause(clock, pauseMs({ tookMs: nowMs - startMs, pieces, leftMs }), signal);
      pieceBytes = 0;
      startMs = clock.nowMs();
    }
  }

  #checkOpen(transfer: BlockTransfer, signal: AbortSignal): void {
    checkStillWanted(transfer, signal, this.#args.clock);
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
  }

  /** The bytes of a round, in a buffer that was used before if there is one. */
  async #gather(round: TransferRound): Promise<Uint8Array<ArrayBuffer>> {
    const { pool } = this.#args;
    const runs = sourceRuns(round), bytes = runBytes(pool, runs);
    const most = Math.max(MAX_ROUND_BYTES, layerBytes(pool.layout));
    const buffer = this.#spareBuffers.pop() ?? new Uint8Array(bytes === 0 ? 0 : most);
    const payload = buffer.subarray(0, bytes);
    await readRunsInto(pool, runs, payload);
    return payload;
  }

  async #sendRound(
    round: TransferRound,
    payload: Uint8Array<ArrayBuffer>,
    transfer: BlockTransfer,
    signal: AbortSignal,
  ): Promise<void> {
    const { links, clock } = this.#args;
    this.#checkOpen(transfer, signal);
    const { migrationId, destination, deadlineMs } = transfer;
    const { firstLayer, numLayers } = round;
    const blocks = destinationBlocksOf(round);
    const data: BlockRound = { migrationId, blocks, firstLayer, numLayers };
    const link = await unlessAborted(
      links.open(destination.address, deadlineMs - clock.nowMs()),
      signal,
    );
    const timeoutMs = deadlineMs - clock.nowMs();
    const message = { data, payload, isPayloadGiven: true };
    try {
      await unlessAborted(link.call("migrate_blocks", message, { timeoutMs }), signal);
      // The answer says that it has gone out. After a failure it may still be on its way.
      if (this.#spareBuffers.length < MAX_SPARE_BUFFERS) {
        this.#spareBuffers.push(new Uint8Array(payload.buffer));
      }
    } catch (error) {
      link.close(); // it may hang; the next transfer opens a new one
      throw error;
    }
  }

  async #receive(
    { data, payload, giveBack }: BackendMessage<BlockRound>,
  ): Promise<BackendMessage<null>> {
    const { pool } = this.#args;
    const { migrationId, blocks, firstLayer, numLayers } = data;
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
    this.#grants.check(migrationId, blocks);
    const runs = blocks.map((block) => ({ block, firstLayer, numLayers }));
    const expected = runBytes(pool, runs);
    if (payload?.length !== expected) {
      throw new RequestError(`${payload?.length} bytes for blocks of ${expected}`);
    }
    const write = writeRuns(pool, runs, payload);
    this.#writing.set(write, migrationId);
    await write.finally(() => this.#writing.delete(write));
    giveBack?.();
    return { data: null };
  }

  /** Resolves when the writes under way are done, of one migration or of all. */
  async #untilWritten(migrationId?: MigrationId): Promise<void> {
    const found = [...this.#writing].filter(([, id]) => (migrationId ?? id) === id);
    await Promise.allSettled(found.map(([write]) => write));
  }
}
