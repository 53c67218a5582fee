import type { Peer } from "../../bus/bus.ts";
import { type Clock, sleep } from "../../core/clock.ts";
import { NobodyListensError, toErrorRecord } from "../../core/errors.ts";
import type { MigrationCallName, ReplyOf, RequestOf } from "../../core/protocol/calls.ts";
import type { AbortNotice, InstanceId } from "../../core/protocol/generate.ts";
import type {
  MigrateCommitRequest,
  MigrateInReply,
  MigrateInRequest,
  MigrateSettleReply,
  MigrationDestination,
  MigrationId,
  MigrationOutcome,
  MigrationPhase,
  MigrationReport,
  TransferStatistics,
} from "../../core/protocol/migration.ts";
import type { TransferOptions } from "../../core/options.ts";
import { blockBytes, type KvLayout } from "../../kv/layout.ts";
import type { BlockTransfer, MigrationBackend } from "../../kv/transfer/backend.ts";
import type { OutgoingMigration } from "../engine/outgoing_migration.ts";
import type { FastCopies } from "./crossover.ts";
import type { MigrationPeers } from "./migration_peers.ts";
import type { MigrationTimeouts } from "./timeouts.ts";

/** Pause before the source asks the destination again who owns a request. */
const SETTLE_RETRY_MS = 100;

export interface SourceConfig {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly layout: KvLayout;
  readonly backend: MigrationBackend;
  readonly peers: MigrationPeers;
  readonly clock: Clock;
  readonly timeouts: MigrationTimeouts;
  readonly limits: Pick<TransferOptions, "lastStageMaxBlocks" | "maxStages">;
  readonly copiesBesideSteps?: boolean;
}

/** One request to move, and where to. */
export interface MigrationTask {
  readonly migrationId: MigrationId;
  readonly destination: MigrationDestination;
  readonly outgoing: OutgoingMigration;
  /** The request moves in one stage, and does not run during it. */
  readonly isBlocking: boolean;
  /** The destination computes the KV cache again, as that of a waiting request: nothing is copied. */
  readonly isRecomputed?: boolean;
  /** Every stage goes at full speed. Otherwise only the last one does. */
  readonly isUrgent: boolean;
  readonly deadlineMs: number;
}

/** The transfer of entries [from, to) of the block table. */
interface StageTransfer
  extends Pick<BlockTransfer, "destinationBlocks" | "deadlineMs" | "isBackground"> {
  readonly from: number;
  readonly to: number;
}

/** Ends a migration; the request stays on the source. */
class Dropped extends Error {
  constructor(readonly outcome: MigrationOutcome, reason: string) {
    super(reason);
  }
}

/**
 * The source's side of one live migration (see "One migration" in README.md). This instance owns
 * the request until the destination has acknowledged the commit. If anything fails before, the
 * request continues here.
 */
export class SourceSide {
  readonly #config: SourceConfig;
  readonly #task: MigrationTask;
  readonly #startMs: number;
  readonly #abort = new AbortController();
  #peer: Peer | null = null;
  #phase: MigrationPhase = "opening";
  #isOpen = false;
  #isOver = false;
  #isAborted = false;
  #endpoint: MigrateInReply["endpoint"] = {};
  #suspendedMs: number | null = null;
  #leftMs: number | undefined = undefined;
  /** Length of the request when it was committed. */
  #lengthTokens: number | null = null;
  #stages = 0;
  #blocks = 0;
  #transfer: TransferStatistics = { bytes: 0, descriptors: 0, rounds: 0, transferMs: 0 };
  /** Copies that went at full speed; or else a copy that took too long, at any speed. */
  #fast = { bytes: 0, ms: 0, isLate: false };

  constructor(config: SourceConfig, task: MigrationTask) {
    this.#config = config;
    this.#task = task;
    this.#startMs = config.clock.nowMs();
  }

  get requestId(): string {
    return this.#task.outgoing.requestId;
  }

  /** What the migration shows of the path to the destination. */
  get fastCopies(): FastCopies {
    return this.#fast;
  }

  /** Whether the request comes to the destination without blocks, and waits there. */
  get #leavesBlocks(): boolean {
    return this.#task.outgoing.isWaiting || this.#task.isRecomputed === true;
  }

  /** The client has aborted the request, wherever it is now. */
  abortRequest(): void {
    this.#isAborted = true;
    this.#abort.abort();
  }

  /** A connection to another instance has ended. */
  closed(peer: Peer): void {
    if (peer === this.#peer) this.#abort.abort();
  }

  /** The instance stops: gives the migration up. */
  stop(): void {
    this.#abort.abort();
  }

  /** Carries the migration out. Never rejects. */
  async run(): Promise<MigrationReport> {
    const { outgoing, migrationId } = this.#task;
    try {
      await this.#open();
      await this.#moveBlocks();
      await this.#commit();
      return this.#report("committed", "");
    } catch (error) {
      this.#isOver = true;
      outgoing.resume();
      if (this.#isOpen) this.#peer!.notify("migrate_cancel", { data: { migrationId } });
      if (outgoing.loss === "ended") return this.#report("finished", "the request has ended");
      if (error instanceof Dropped) return this.#report(error.outcome, error.message);
      return this.#report("aborted_source", toErrorRecord(error).message);
    }
  }

  async #open(): Promise<void> {
    const { peers, timeouts, instanceId, model, layout, backend } = this.#config;
    const { migrationId, destination, outgoing } = this.#task;
    const request: MigrateInRequest = {
      migrationId,
      sourceId: instanceId,
      requestId: outgoing.requestId,
      arrivalMs: outgoing.arrivalMs,
      lengthTokens: outgoing.lengthTokens,
      isWaiting: this.#leavesBlocks,
      model,
      backend: backend.name,
      layout: { ...layout },
    };
    try {
      this.#peer = await peers.open(destination.address, timeouts.answerMs);
    } catch (error) {
      throw new Dropped("aborted_destination", toErrorRecord(error).message);
    }
    this.#isOpen = true; // also if no answer comes: the destination may have opened it
    this.#endpoint = (await this.#call("migrate_in", request)).endpoint;
    this.#checkLoss();
  }

  /** Runs stages until all blocks are at the destination and the request is suspended. */
  async #moveBlocks(): Promise<void> {
    const { outgoing, isBlocking } = this.#task;
    const { maxStages, lastStageMaxBlocks } = this.#config.limits;
    for (;;) {
      const isLast = isBlocking || this.#leavesBlocks ||
        outgoing.numBlocks - this.#blocks <= Math.max(1, lastStageMaxBlocks);
      if (this.#stages >= maxStages) {
        throw new Dropped(
          "aborted_source",
          `the migration needs more stages than --max-stages ${maxStages}`,
        );
      }
      await this.#runStage(isLast);
      this.#stages++;
      if (isLast) return;
    }
  }

  async #runStage(isLast: boolean): Promise<void> {
    const { outgoing, migrationId, deadlineMs, isUrgent } = this.#task;
    const { clock, timeouts, copiesBesideSteps = false } = this.#config;
    const stageDeadlineMs = Math.min(deadlineMs, clock.nowMs() + timeouts.stageMs);
    const from = this.#blocks;
    this.#phase = isLast ? "last_stage" : "copying";
    // From here on no step begins with the request, so that its block table does not grow.
    const suspension = isLast ? this.#suspend(stageDeadlineMs) : Promise.resolve();
    // The step under way adds a token, for which a request that is computed again needs room too.
    if (this.#task.isRecomputed) await suspension;
    this.#checkLoss();
    const to = isLast ? outgoing.numBlocks : outgoing.numSettledBlocks;
    const blocks = this.#leavesBlocks ? outgoing.numRequiredBlocks : to - from;
    // The request runs on until the next stage, and grows.
    const nextBlocks = isLast
      ? 0
      : outgoing.numBlocks - to + this.#config.limits.lastStageMaxBlocks;
    const reservation = this.#call(
      "migrate_reserve",
      { migrationId, stage: this.#stages, blocks, nextBlocks },
      stageDeadlineMs,
    );
    const [{ blocks: destinationBlocks }] = await Promise.all([reservation, suspension]);
    this.#checkLoss();
    const isBackground = !isLast && !isUrgent && !copiesBesideSteps;
    if (!this.#leavesBlocks) {
      await this.#send({ from, to, destinationBlocks, deadlineMs: stageDeadlineMs, isBackground });
    }
    this.#blocks = this.#leavesBlocks ? 0 : to;
  }

  async #send({ from, to, ...transfer }: StageTransfer): Promise<void> {
    const { backend, clock } = this.#config;
    const { outgoing, migrationId, destination } = this.#task;
    const { deadlineMs } = transfer;
    const sourceBlocks = outgoing.pin(from, to, () => this.#abort.abort());
    const startMs = clock.nowMs();
    const cancelDeadline = clock.after(deadlineMs - startMs, () => {
      // Otherwise the path would never be measured, and every request would try it again.
      const bytes = (to - from) * blockBytes(this.#config.layout);
      this.#fast = { bytes, ms: clock.nowMs() - startMs, isLate: true };
      this.#abort.abort();
    });
    try {
      const statistics = await backend.send({
        ...transfer,
        migrationId,
        destination,
        endpoint: this.#endpoint,
        sourceBlocks,
      }, this.#abort.signal);
      this.#transfer = sum(this.#transfer, statistics);
      if (!transfer.isBackground) {
        this.#fast.bytes += statistics.bytes;
        this.#fast.ms += statistics.transferMs;
      }
    } finally {
      cancelDeadline();
      outgoing.unpin();
      this.#checkLoss(); // the loss of the request explains more than the aborted transfer
    }
  }

  /**
   * Resolves when the request is out of its step and suspended.
   * @throws {Dropped} the step does not end before the deadline
   */
  #suspend(deadlineMs: number): Promise<void> {
    const { outgoing } = this.#task;
    const { clock } = this.#config;
    return new Promise((resolve, reject) => {
      const cancel = clock.after(deadlineMs - clock.nowMs(), () => {
        reject(new Dropped("aborted_source", "the running step did not end in time"));
      });
      outgoing.suspend((isSuspended) => {
        cancel();
        // The migration may have failed while the step was running.
        if (this.#isOver) outgoing.resume();
        else if (isSuspended) this.#suspendedMs = clock.nowMs();
        resolve();
      });
    });
  }

  /** Changes the owner of the request: nothing else does. */
  async #commit(): Promise<void> {
    this.#phase = "commit";
    const { outgoing, migrationId } = this.#task;
    const epoch = outgoing.epoch + 1;
    const request: MigrateCommitRequest = { migrationId, request: outgoing.snapshot(epoch) };
    this.#lengthTokens = outgoing.lengthTokens;
    const state = await this.#offer(request);
    if (state === "cancelled") {
      throw new Dropped("aborted_destination", "the destination did not take the request");
    }
    if (state === "unknown") {
      this.#isOver = true;
      // If the destination owns it after all, the API server follows the higher epoch.
      outgoing.resume(epoch + 1);
      throw new Dropped(
        "aborted_destination",
        "the destination did not say whether it owns the request",
      );
    }
    this.#leftMs = this.#config.clock.nowMs(); // reports from now on do not count the request
    outgoing.release();
    if (this.#isAborted) {
      const notice: AbortNotice = { requestIds: [outgoing.requestId], upToEpoch: epoch };
      this.#peer!.notify("abort", { data: notice });
    }
  }

  async #offer(request: MigrateCommitRequest): Promise<MigrateSettleReply["state"] | "unknown"> {
    const { timeouts } = this.#config;
    try {
      await this.#peer!.call("migrate_commit", { data: request }, { timeoutMs: timeouts.answerMs });
      return "committed";
    } catch (error) {
      const { kind, message } = toErrorRecord(error);
      const isRefused = kind === "invalid_request" || kind === "overloaded";
      if (isRefused) throw new Dropped("aborted_destination", message);
    }
    return await this.#settle();
  }

  async #settle(): Promise<MigrateSettleReply["state"] | "unknown"> {
    const { clock, timeouts, peers } = this.#config;
    const { destination, migrationId } = this.#task;
    const untilMs = clock.nowMs() + timeouts.settleMs;
    for (;;) {
      const timeoutMs = Math.min(timeouts.answerMs, untilMs - clock.nowMs());
      if (timeoutMs <= 0) return "unknown";
      try {
        this.#peer = await peers.open(destination.address, timeoutMs);
        const { data } = await this.#peer.call("migrate_settle", { data: { migrationId } }, {
          timeoutMs,
        });
        return data.state;
      } catch (error) {
        if (error instanceof NobodyListensError) return "unknown"; // the destination is gone
        await sleep(clock, SETTLE_RETRY_MS);
      }
    }
  }

  /** Calls the destination. @throws {Dropped} it refuses, or does not answer in time */
  async #call<M extends MigrationCallName>(
    method: M,
    data: RequestOf<M>,
    deadlineMs?: number,
  ): Promise<ReplyOf<M>> {
    const { clock, timeouts } = this.#config;
    const timeoutMs = deadlineMs === undefined ? timeouts.answerMs : deadlineMs - clock.nowMs();
    try {
      const answer = await this.#peer!.call(method, { data }, { timeoutMs });
      return answer.data;
    } catch (error) {
      throw new Dropped("aborted_destination", toErrorRecord(error).message);
    }
  }

  /** @throws {Dropped} the request ended, was preempted, or was admitted */
  #checkLoss(): void {
    const { loss, requestId } = this.#task.outgoing;
    if (loss === null) return;
    throw new Dropped("aborted_source", `${requestId} was ${loss}`);
  }

  #report(outcome: MigrationOutcome, reason: string): MigrationReport {
    const { migrationId, destination, outgoing } = this.#task;
    const nowMs = this.#config.clock.nowMs();
    const wasStopped = outcome === "committed" && !outgoing.isWaiting;
    return {
      migrationId,
      sourceId: this.#config.instanceId,
      destinationId: destination.instanceId,
      requestId: outgoing.requestId,
      outcome,
      phase: this.#phase,
      reason,
      lengthTokens: this.#lengthTokens ?? outgoing.lengthTokens,
      stages: this.#stages,
      blocks: this.#blocks,
      transfer: this.#transfer,
      ...(this.#task.isRecomputed && { isRecomputed: true }),
      downtimeMs: wasStopped ? nowMs - this.#suspendedMs! : 0,
      totalMs: nowMs - this.#startMs,
      leftMs: this.#leftMs,
    };
  }
}

function sum(a: TransferStatistics, b: TransferStatistics): TransferStatistics {
  return {
    bytes: a.bytes + b.bytes,
    descriptors: a.descriptors + b.descriptors,
    rounds: a.rounds + b.rounds,
    transferMs: a.transferMs + b.transferMs,
  };
}
