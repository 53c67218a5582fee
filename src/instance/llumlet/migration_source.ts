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
  MigrationReport,
  TransferStatistics,
} from "../../core/protocol/migration.ts";
import type { TransferOptions } from "../../core/options.ts";
import type { KvLayout } from "../../kv/layout.ts";
import type { BlockTransfer, MigrationBackend } from "../../kv/transfer/backend.ts";
import type { Departure } from "../engine/outgoing_migration.ts";
import type { InstanceLinks } from "./migration_peers.ts";
import type { MigrationTimeouts } from "./timeouts.ts";

/** Pause before a destination is asked again who owns a request. */
const SETTLE_RETRY_MS = 100;

export interface SourceConfig {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly layout: KvLayout;
  readonly backend: MigrationBackend;
  readonly links: InstanceLinks;
  readonly clock: Clock;
  readonly timeouts: MigrationTimeouts;
  readonly limits: Pick<TransferOptions, "lastStageMaxBlocks" | "maxStages">;
  readonly copiesBesideSteps?: boolean;
}

/** One request that is to leave. */
export interface Outgoing {
  readonly migrationId: MigrationId;
  readonly destination: MigrationDestination;
  readonly departure: Departure;
  /** It leaves in one stage, suspended from its beginning. */
  readonly isBlocking: boolean;
  /** It leaves as fast as it can. Else stages before the last, for which nobody waits, take their time. */
  readonly isUrgent: boolean;
  readonly deadlineMs: number;
}

/** Entries [from, to) of the block table, on their way. */
interface StageTransfer
  extends Pick<BlockTransfer, "destinationBlocks" | "deadlineMs" | "isBackground"> {
  readonly from: number;
  readonly to: number;
}

/** Ends a migration; the request stays. */
class Dropped extends Error {
  constructor(readonly outcome: MigrationOutcome, reason: string) {
    super(reason);
  }
}

/**
 * The source's side of one migration (behaviour page, section 4). Until the destination has
 * acknowledged the commit the request is this instance's; whatever goes wrong before, it goes on here.
 */
export class MigrationSource {
  readonly #config: SourceConfig;
  readonly #outgoing: Outgoing;
  readonly #startMs: number;
  readonly #abort = new AbortController();
  #peer: Peer | null = null;
  #isOpen = false;
  #isOver = false;
  #isAborted = false;
  #endpoint: MigrateInReply["endpoint"] = {};
  #suspendedMs: number | null = null;
  #leftMs: number | undefined = undefined;
  /** When it left. */
  #lengthTokens: number | null = null;
  #stages = 0;
  #blocks = 0;
  #transfer: TransferStatistics = { bytes: 0, descriptors: 0, rounds: 0, transferMs: 0 };

  constructor(config: SourceConfig, outgoing: Outgoing) {
    this.#config = config;
    this.#outgoing = outgoing;
    this.#startMs = config.clock.nowMs();
  }

  get requestId(): string {
    return this.#outgoing.departure.requestId;
  }

  /** The request's client wants no more of it, wherever it is. */
  abortRequest(): void {
    this.#isAborted = true;
    this.#abort.abort();
  }

  /** A connection has ended. */
  closed(peer: Peer): void {
    if (peer === this.#peer) this.#abort.abort();
  }

  /** The instance stops. */
  stop(): void {
    this.#abort.abort();
  }

  async run(): Promise<MigrationReport> {
    const { departure, migrationId } = this.#outgoing;
    try {
      await this.#open();
      await this.#moveBlocks();
      await this.#commit();
      return this.#report("committed", "");
    } catch (error) {
      this.#isOver = true;
      departure.resume();
      if (this.#isOpen) this.#peer!.notify("migrate_cancel", { data: { migrationId } });
      if (departure.loss === "ended") return this.#report("finished", "the request has ended");
      if (error instanceof Dropped) return this.#report(error.outcome, error.message);
      return this.#report("aborted_source", toErrorRecord(error).message);
    }
  }

  async #open(): Promise<void> {
    const { links, timeouts, instanceId, model, layout, backend } = this.#config;
    const { migrationId, destination, departure } = this.#outgoing;
    const request: MigrateInRequest = {
      migrationId,
      sourceId: instanceId,
      requestId: departure.requestId,
      arrivalMs: departure.arrivalMs,
      lengthTokens: departure.lengthTokens,
      isWaiting: departure.isWaiting,
      model,
      backend: backend.name,
      layout: { ...layout },
    };
    try {
      this.#peer = await links.open(destination.address, timeouts.answerMs);
    } catch (error) {
      throw new Dropped("aborted_destination", toErrorRecord(error).message);
    }
    this.#isOpen = true; // also when no answer comes
    this.#endpoint = (await this.#call("migrate_in", request)).endpoint;
    this.#checkLoss();
  }

  /** Stage after stage, until all blocks are there and the request is suspended. */
  async #moveBlocks(): Promise<void> {
    const { departure, isBlocking } = this.#outgoing;
    const { maxStages, lastStageMaxBlocks } = this.#config.limits;
    for (;;) {
      const isLast = isBlocking || departure.isWaiting ||
        departure.numBlocks - this.#blocks <= Math.max(1, lastStageMaxBlocks);
      if (this.#stages >= maxStages) {
        throw new Dropped("aborted_source", `it takes more than --max-stages ${maxStages}`);
      }
      await this.#runStage(isLast);
      this.#stages++;
      if (isLast) return;
    }
  }

  async #runStage(isLast: boolean): Promise<void> {
    const { departure, migrationId, deadlineMs, isUrgent } = this.#outgoing;
    const { clock, timeouts, copiesBesideSteps = false } = this.#config;
    const stageDeadlineMs = Math.min(deadlineMs, clock.nowMs() + timeouts.stageMs);
    const from = this.#blocks;
    // No step begins with it once its suspension is asked for: its table grows no more.
    const suspension = isLast ? this.#suspend(stageDeadlineMs) : Promise.resolve();
    const to = isLast ? departure.numBlocks : departure.numSettledBlocks;
    const blocks = departure.isWaiting ? departure.numRequiredBlocks : to - from;
    // Until the next stage it goes on, and grows.
    const nextBlocks = isLast
      ? 0
      : departure.numBlocks - to + this.#config.limits.lastStageMaxBlocks;
    const reservation = this.#call(
      "migrate_reserve",
      { migrationId, stage: this.#stages, blocks, nextBlocks },
      stageDeadlineMs,
    );
    const [{ blocks: destinationBlocks }] = await Promise.all([reservation, suspension]);
    this.#checkLoss();
    const isBackground = !isLast && !isUrgent && !copiesBesideSteps;
    if (!departure.isWaiting) {
      await this.#send({ from, to, destinationBlocks, deadlineMs: stageDeadlineMs, isBackground });
    }
    this.#blocks = to;
  }

  async #send({ from, to, ...transfer }: StageTransfer): Promise<void> {
    const { backend, clock } = this.#config;
    const { departure, migrationId, destination } = this.#outgoing;
    const { deadlineMs } = transfer;
    const sourceBlocks = departure.pin(from, to, () => this.#abort.abort());
    const cancelDeadline = clock.after(deadlineMs - clock.nowMs(), () => this.#abort.abort());
    try {
      const statistics = await backend.send({
        ...transfer,
        migrationId,
        destination,
        endpoint: this.#endpoint,
        sourceBlocks,
      }, this.#abort.signal);
      this.#transfer = sum(this.#transfer, statistics);
    } finally {
      cancelDeadline();
      departure.unpin();
      this.#checkLoss(); // which says more than that the transfer was aborted
    }
  }

  /** Resolves when the request is in no step any more; at the latest when the time is over. */
  #suspend(deadlineMs: number): Promise<void> {
    const { departure } = this.#outgoing;
    const { clock } = this.#config;
    return new Promise((resolve, reject) => {
      const cancel = clock.after(deadlineMs - clock.nowMs(), () => {
        reject(new Dropped("aborted_source", "the running step did not end in time"));
      });
      departure.suspend((isSuspended) => {
        cancel();
        // The migration may have failed while the step ran.
        if (this.#isOver) departure.resume();
        else if (isSuspended) this.#suspendedMs = clock.nowMs();
        resolve();
      });
    });
  }

  /** The one moment at which the owner changes. */
  async #commit(): Promise<void> {
    const { departure, migrationId } = this.#outgoing;
    const epoch = departure.epoch + 1;
    const request: MigrateCommitRequest = { migrationId, request: departure.snapshot(epoch) };
    this.#lengthTokens = departure.lengthTokens;
    const state = await this.#offer(request);
    if (state === "cancelled") {
      throw new Dropped("aborted_destination", "the destination did not take the request");
    }
    if (state === "unknown") {
      this.#isOver = true;
      // If the destination owns it after all, the higher epoch tells the API server who is right.
      departure.resume(epoch + 1);
      throw new Dropped("aborted_destination", "the destination did not say whether it has it");
    }
    this.#leftMs = this.#config.clock.nowMs(); // reports from now on are without it
    departure.release();
    if (this.#isAborted) {
      const notice: AbortNotice = { requestIds: [departure.requestId], upToEpoch: epoch };
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
    const { clock, timeouts, links } = this.#config;
    const { destination, migrationId } = this.#outgoing;
    const untilMs = clock.nowMs() + timeouts.settleMs;
    for (;;) {
      const timeoutMs = Math.min(timeouts.answerMs, untilMs - clock.nowMs());
      if (timeoutMs <= 0) return "unknown";
      try {
        this.#peer = await links.open(destination.address, timeoutMs);
        const { data } = await this.#peer.call("migrate_settle", { data: { migrationId } }, {
          timeoutMs,
        });
        return data.state;
      } catch (error) {
        if (error instanceof NobodyListensError) return "unknown"; // nobody will ever say
        await sleep(clock, SETTLE_RETRY_MS);
      }
    }
  }

  /** What the destination refuses, or does not answer, drops the migration. */
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

  /** @throws {Dropped} the request is not what it was any more */
  #checkLoss(): void {
    const { loss, requestId } = this.#outgoing.departure;
    if (loss === null) return;
    throw new Dropped("aborted_source", `${requestId} was ${loss}`);
  }

  #report(outcome: MigrationOutcome, reason: string): MigrationReport {
    const { migrationId, destination, departure } = this.#outgoing;
    const nowMs = this.#config.clock.nowMs();
    const wasStopped = outcome === "committed" && !departure.isWaiting;
    return {
      migrationId,
      sourceId: this.#config.instanceId,
      destinationId: destination.instanceId,
      requestId: departure.requestId,
      outcome,
      reason,
      lengthTokens: this.#lengthTokens ?? departure.lengthTokens,
      stages: this.#stages,
      blocks: this.#blocks,
      transfer: this.#transfer,
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
