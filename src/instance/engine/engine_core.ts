import { type ErrorRecord, toErrorRecord } from "../../core/errors.ts";
import type { RequestsQuery, RequestsReply } from "../../core/protocol/admin.ts";
import type {
  Finish,
  GenerateRequest,
  OwnershipEpoch,
  RequestId,
} from "../../core/protocol/generate.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";
import type { ExecutorInfo, StepInput, StepOutput } from "../../executor/executor.ts";
import { IncomingMigration, type IncomingRequest } from "./incoming_migration.ts";
import { BlockManager, type BlocksInFlight } from "./block_manager.ts";
import { OutgoingMigration } from "./outgoing_migration.ts";
import type { EngineConfig } from "./engine_config.ts";
import { type InfoParts, instanceInfo, LastStep } from "./instance_info.ts";
import type { MoveParts } from "./move_parts.ts";
import { type AddressedOutputs, PendingOutputs } from "./pending_outputs.ts";
import { queuesOf } from "./queues_of.ts";
import type { RequestQueues } from "../llumlet/request_choice/policy.ts";
import { checkPlaces, checkQueues } from "./queue_checks.ts";
import { checkAdmission, checkRequest } from "./request_checks.ts";
import { requestStatuses } from "./request_status.ts";
import { type Schedule, Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import { StepBuilder } from "./step_builder.ts";
import { finishOf } from "./stop_conditions.ts";

/** A step that the executor has. */
interface StepUnderWay {
  readonly schedule: Readonly<Schedule>;
  readonly stepId: number;
}

/**
 * An engine without its loop: it decides which step comes next and applies the step's result. Time
 * and results are passed in, so that the same code runs on a virtual clock.
 *
 * Calls of {@linkcode begin} and {@linkcode end} alternate; {@linkcode beginAhead} may come between
 * them. Between any two of them, requests may be added and aborted, and may migrate to or from the
 * engine. A request ends exactly once, with
 * the one output that has `finish`, unless it migrates away.
 */
export class EngineCore {
  readonly #config: EngineConfig;
  readonly #vocabSize: number;
  readonly #blocks: BlockManager;
  readonly #scheduler: Scheduler;
  readonly #builder: StepBuilder;
  readonly #requests = new Map<RequestId, Sequence>();
  readonly #moveParts: MoveParts;
  readonly #incoming = new Set<IncomingMigration>();
  /** Actions to run when the running step has ended. */
  #betweenSteps: (() => void)[] = [];
  #failure: ErrorRecord | null = null;
  readonly #outputs = new PendingOutputs();
  /** The step that the executor runs now; null between steps. */
  #step: StepUnderWay | null = null;
  /** The step after it, if the executor has that one, too. */
  #ahead: StepUnderWay | null = null;
  #numAccepted = 0;
  /** Requests that have ended since the last {@linkcode takeInfo}. */
  #finishedIds: RequestId[] = [];
  /** Requests passed to {@linkcode add} since then, also refused ones. */
  #receivedIds: RequestId[] = [];
  readonly #totals = { promptTokens: 0, outputTokens: 0, preemptions: 0 };
  readonly #lastStep = new LastStep();
  readonly #infoParts: InfoParts;

  /** @param onMove a migration has changed queues, blocks or outputs */
  constructor(config: EngineConfig, executor: ExecutorInfo, onMove: () => void = () => {}) {
    this.#config = config;
    this.#vocabSize = executor.vocabSize;
    this.#builder = new StepBuilder(!executor.hasNoCache);
    this.#blocks = new BlockManager({
      blockSize: executor.layout.blockSize,
      deviceBlocks: executor.numBlocks,
      swapBlocks: executor.numSwapBlocks,
    });
    this.#scheduler = new Scheduler(config, this.#blocks);
    this.#infoParts = {
      config,
      scheduler: this.#scheduler,
      blocks: this.#blocks,
      builder: this.#builder,
      lastStep: this.#lastStep,
      totals: this.#totals,
    };
    this.#moveParts = {
      instanceId: config.instanceId,
      maxModelLen: config.maxModelLen,
      maxWaitingRequests: config.maxWaitingRequests,
      blocks: this.#blocks,
      scheduler: this.#scheduler,
      incoming: this.#incoming,
      has: (requestId) => this.#requests.has(requestId),
      accept: (request) => this.#accept(request),
      forget: (sequence) => this.#drop(sequence),
      announce: (sequence) => this.#outputs.pushWord(sequence),
      betweenSteps: (action) => this.#runBetweenSteps(action),
      betweenCopies: (action) => this.#runBetweenCopies(action),
      failure: () => this.#failure?.message ?? null,
      changed: onMove,
    };
  }

  /** Number of requests that have not ended. */
  get numRequests(): number {
    return this.#requests.size;
  }

  /** The step that the executor runs; null between steps. */
  get step(): Readonly<Schedule> | null {
    return this.#step?.schedule ?? null;
  }

  /** No request is left, no step runs, and no output waits to be taken. */
  get isIdle(): boolean {
    return this.#requests.size === 0 && this.#step === null && this.#outputs.isEmpty;
  }

  /**
   * Queues a request.
   * @throws {RequestError} it can never be served
   * @throws {OverloadedError} the queue is full
   */
  add(request: GenerateRequest): void {
    this.#receivedIds.push(request.requestId);
    checkRequest(request, this.#requests, this.#vocabSize);
    const sequence = new Sequence(request, this.#numAccepted);
    const finish = finishOf(sequence, this.#config.maxModelLen);
    if (finish) return this.#outputs.pushWord(sequence, finish);
    checkAdmission(sequence, this.#scheduler, this.#config);
    this.#numAccepted++;
    this.#requests.set(request.requestId, sequence);
    this.#scheduler.add(sequence);
  }

  /** Ends a request with reason `abort`; unknown ids are ignored. */
  abort(requestId: RequestId): void {
    const sequence = this.#requests.get(requestId);
    if (sequence) this.#finish(sequence, { reason: "abort" });
  }

  /**
   * Ends every request with reason `error` and accepts no more. Requests outside the failed step
   * end first, as `unavailable`: the API server resumes them without suspecting them of the
   * failure.
   */
  fail(error: ErrorRecord): void {
    this.#failure = error;
    const isOfStep = error.kind === "internal" && this.#step !== null;
    const all = [...this.#requests.values()];
    for (const sequence of isOfStep ? all.filter(({ isInStep }) => !isInStep) : all) {
      const kind = isOfStep ? "unavailable" : error.kind;
      this.#finish(sequence, { reason: "error", error: { ...error, kind } });
    }
    for (const sequence of [...this.#requests.values()]) {
      this.#finish(sequence, { reason: "error", error });
    }
    for (const action of this.#betweenSteps.splice(0)) action();
  }

  has(requestId: RequestId): boolean {
    return this.#requests.has(requestId);
  }

  /** See {@linkcode requestStatuses}. */
  requests(query: RequestsQuery, nowMs: number): RequestsReply {
    return requestStatuses(this.#requests.values(), query, this.#config.instanceId, nowMs);
  }

  /** The ownership epoch of a request; null for unknown ids. */
  epochOf(requestId: RequestId): OwnershipEpoch | null {
    return this.#requests.get(requestId)?.epoch ?? null;
  }

  /** Milliseconds in which a token of a prompt is computed; null before the first prompt. */
  get prefillTokenMs(): number | null {
    return this.#scheduler.pieces.tokenMs;
  }

  /** The requests that may migrate: suspended ones are not among them. */
  queues(): RequestQueues {
    return queuesOf(this.#scheduler, this.#blocks);
  }

  /** Lifts every limit of steps: prefill instances decode their requests themselves from now on. */
  clearExpectedSteps(): void {
    for (const sequence of this.#requests.values()) sequence.expectedSteps = null;
  }

  /** See {@linkcode Scheduler.heldUntilMs}. */
  get heldUntilMs(): number {
    return this.#scheduler.heldUntilMs;
  }

  /** Begins to migrate a request away; null unless the request waits or decodes here. */
  beginOutgoing(requestId: RequestId): OutgoingMigration | null {
    const sequence = this.#requests.get(requestId);
    const canLeave = sequence?.status === "waiting" ||
      (sequence?.status === "running" && sequence.numComputedTokens > 0 && !sequence.isPrefilling);
    return canLeave ? new OutgoingMigration(this.#moveParts, sequence) : null;
  }

  /** Begins to migrate a request to here; throws as {@linkcode IncomingMigration} does. */
  beginIncoming(request: IncomingRequest): IncomingMigration {
    return new IncomingMigration(this.#moveParts, request);
  }

  /** Tells the API server of a request that this instance owns it. */
  announce(requestId: RequestId): void {
    const sequence = this.#requests.get(requestId);
    if (sequence) this.#outputs.pushWord(sequence);
  }

  /** The next step, or null if nothing can run. Its arrays are valid until the step after it. */
  begin(nowMs: number): StepInput | null {
    let schedule;
    do {
      schedule = this.#scheduler.schedule(nowMs);
      this.#totals.preemptions += schedule.numPreempted;
      for (const { sequence, error } of schedule.failed) {
        this.#forget(sequence);
        this.#outputs.pushWord(sequence, { reason: "error", error: toErrorRecord(error) });
      }
      // A failed sequence makes room. One that preempted itself may turn out never to fit.
    } while (
      schedule.sequences.length === 0 && schedule.failed.length + schedule.numPreempted > 0
    );
    if (schedule.sequences.length === 0) return null;
    const input = this.#builder.build(schedule);
    this.#step = this.#underWay(schedule);
    for (const sequence of schedule.sequences) sequence.startedMs ??= nowMs;
    return input;
  }

  /** Whether {@linkcode beginAhead} would give a step now. */
  get canBeginAhead(): boolean {
    const isFree = this.#step !== null && this.#ahead === null && this.#failure === null;
    return isFree && this.#betweenSteps.length === 0 &&
      this.#scheduler.canScheduleAhead(this.#step!.schedule);
  }

  /**
   * The step after the running one, for executors that run ahead; null if it cannot be decided before the
   * running one ends. The next call of {@linkcode end} ends the running one.
   */
  beginAhead(): StepInput | null {
    if (!this.canBeginAhead) return null;
    const before = this.#step!.schedule;
    const schedule = this.#scheduler.scheduleAhead(before)!;
    const input = this.#builder.build(schedule, before);
    this.#ahead = this.#underWay(schedule);
    return input;
  }

  #underWay(schedule: Readonly<Schedule>): StepUnderWay {
    for (const sequence of schedule.sequences) sequence.numStepsUnderWay++;
    return { schedule, stepId: this.#builder.stepId };
  }

  /**
   * Applies the result of the running step.
   * @param nowMs reported with the tokens of requests that asked for timestamps
   */
  end(result: StepOutput, nowMs = 0): void {
    if (result.stepId !== this.#step?.stepId) {
      throw new Error(`result of step ${result.stepId}, expected ${this.#step?.stepId ?? "none"}`);
    }
    const step = this.#step.schedule;
    this.#step = this.#ahead;
    this.#ahead = null;
    let contextTokens = 0;
    for (let i = 0; i < step.sequences.length; i++) {
      const sequence = step.sequences[i];
      sequence.numStepsUnderWay--;
      contextTokens += sequence.lengthTokens;
      // An abort during the step did not free the blocks: the step was using them.
      const error = result.failures?.[i];
      if (sequence.status === "finished") this.#freeAfterSteps(sequence);
      else if (error) this.#finish(sequence, { reason: "error", error });
      else if (step.isPartial) sequence.numComputedTokens += step.numBatchedTokens;
      else this.#append(sequence, result, i, nowMs);
    }
    if (step.kind === "prefill") this.#totals.promptTokens += step.numBatchedTokens;
    if (!step.isPartial) this.#totals.outputTokens += step.sequences.length;
    const { kind, numBatchedTokens, isLaterPiece } = step;
    this.#scheduler.pieces.note(kind, numBatchedTokens, result.latencyMs, isLaterPiece);
    const lastStep = this.#lastStep;
    lastStep.kind = step.kind;
    lastStep.batchedTokens = step.numBatchedTokens;
    lastStep.sequences = step.sequences.length;
    lastStep.contextTokens = contextTokens;
    lastStep.latencyMs = result.latencyMs;
    if (this.#betweenSteps.length > 0 && this.#step === null) {
      for (const action of this.#betweenSteps.splice(0)) action();
    }
  }

  /** The outputs since the last call. */
  takeOutputs(): readonly AddressedOutputs[] {
    return this.#outputs.take();
  }

  /** The state now, and the requests that arrived or ended since the last {@linkcode takeInfo}. */
  info(nowMs: number): InstanceInfo {
    return this.#infoWith([...this.#finishedIds], [...this.#receivedIds], nowMs);
  }

  /** The same for a report to the manager: later ones do not repeat these requests. */
  takeInfo(nowMs: number): InstanceInfo {
    const info = this.#infoWith(this.#finishedIds, this.#receivedIds, nowMs);
    this.#finishedIds = [];
    this.#receivedIds = [];
    return info;
  }

  /**
   * Verifies blocks, block tables and queues against each other. May be called at any time.
   * @param inFlight see {@linkcode BlockManager.check}
   * @throws {Error} naming the first inconsistency
   */
  check(inFlight?: BlocksInFlight): void {
    // A sequence that ended during the step keeps its blocks until the end of the step.
    const ended = [this.#step, this.#ahead].flatMap((step) => step?.schedule.sequences ?? [])
      .filter(({ status }) => status === "finished");
    this.#blocks.check(new Set([...this.#requests.values(), ...ended]), inFlight);
    checkQueues(this.#scheduler, this.#requests);
    checkPlaces(this.#scheduler, this.#incoming);
  }

  #infoWith(
    finishedIds: readonly RequestId[],
    receivedIds: readonly RequestId[],
    nowMs: number,
  ): InstanceInfo {
    return instanceInfo(this.#infoParts, this.step, finishedIds, receivedIds, nowMs);
  }

  #append(sequence: Sequence, result: StepOutput, row: number, nowMs: number): void {
    sequence.numComputedTokens = sequence.lengthTokens;
    sequence.numSteps++;
    sequence.append(result.tokenIds[row]);
    const finish = finishOf(sequence, this.#config.maxModelLen);
    this.#outputs.pushToken(sequence, result, row, nowMs, finish);
    if (finish) this.#remove(sequence);
  }

  /** Ends a request for another reason than a token of a step. */
  #finish(sequence: Sequence, finish: Finish): void {
    this.#remove(sequence);
    this.#outputs.pushWord(sequence, finish);
  }

  /** Removes a sequence that ends. Blocks that a step is using are freed when the step ends. */
  #remove(sequence: Sequence): void {
    this.#scheduler.remove(sequence);
    if (!sequence.isInStep) this.#blocks.free(sequence);
    sequence.status = "finished";
    sequence.onLoss?.();
    this.#forget(sequence);
  }

  #forget(sequence: Sequence): void {
    this.#drop(sequence);
    this.#finishedIds.push(sequence.requestId);
  }

  #drop(sequence: Sequence): void {
    this.#requests.delete(sequence.requestId);
    if (!sequence.isInStep) this.#builder.forget(sequence);
  }

  /** Frees what an ended sequence has kept for the steps that compute it, once none is under way. */
  #freeAfterSteps(sequence: Sequence): void {
    if (sequence.isInStep) return;
    this.#blocks.free(sequence);
    this.#builder.forget(sequence);
  }

  #accept(request: GenerateRequest): Sequence {
    checkRequest(request, this.#requests, this.#vocabSize);
    const sequence = new Sequence(request, this.#numAccepted++);
    this.#requests.set(request.requestId, sequence);
    return sequence;
  }

  #runBetweenSteps(action: () => void): void {
    if (this.#step && !this.#failure) this.#betweenSteps.push(action);
    else action();
  }

  #runBetweenCopies(action: () => void): void {
    if (this.#step && this.#step.schedule.swapOut.length > 0) this.#runBetweenSteps(action);
    else action();
  }
}
