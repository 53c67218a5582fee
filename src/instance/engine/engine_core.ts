import {
  type ErrorRecord,
  OverloadedError,
  RequestError,
  toErrorRecord,
} from "../../core/errors.ts";
import {
  MAX_LISTED_REQUESTS,
  type RequestsQuery,
  type RequestsReply,
} from "../../core/protocol/admin.ts";
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
import { type Schedule, Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import { StepBuilder } from "./step_builder.ts";
import { finishOf } from "./stop_conditions.ts";

/**
 * Everything of an engine but the waiting: which step comes next, and what its result means. Time
 * and results are handed in, so the same code runs on a virtual clock.
 *
 * {@linkcode begin} and {@linkcode end} alternate; requests may be added and aborted, leave and
 * arrive at any time in between. A request ends exactly once, with the one output that has `finish`,
 * or leaves.
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
  /** What waits for the running step to end. */
  #betweenSteps: (() => void)[] = [];
  #failure: ErrorRecord | null = null;
  readonly #outputs = new PendingOutputs();
  /** What the executor runs now; null between steps. */
  #step: Readonly<Schedule> | null = null;
  #numAccepted = 0;
  /** Requests that have ended since an info was taken. */
  #finishedIds: RequestId[] = [];
  /** Requests that {@linkcode add} was given since then. */
  #receivedIds: RequestId[] = [];
  readonly #totals = { promptTokens: 0, outputTokens: 0, preemptions: 0 };
  readonly #lastStep = new LastStep();
  readonly #infoParts: InfoParts;

  /** @param onMove queues, blocks or outputs have changed because a request leaves or arrives */
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

  /** Requests that have not ended. */
  get numRequests(): number {
    return this.#requests.size;
  }

  /** What the executor runs; null between steps. */
  get step(): Readonly<Schedule> | null {
    return this.#step;
  }

  /** No request is left, no step runs, no output waits. */
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
    this.#validate(request);
    const sequence = new Sequence(request, this.#numAccepted);
    const finish = finishOf(sequence, this.#config.maxModelLen);
    if (finish) return this.#outputs.pushWord(sequence, finish);
    if (this.#scheduler.admissionOf(sequence) === "never") {
      throw this.#scheduler.neverFits(sequence);
    }
    const { maxWaitingRequests, instanceId } = this.#config;
    if (this.#scheduler.waiting.length >= maxWaitingRequests) {
      throw new OverloadedError(
        `${maxWaitingRequests} requests are waiting on ${instanceId}, its limit. Try again later.`,
      );
    }
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
   * Ends every request with reason `error`; none is taken any more. A step that failed was not that of
   * the others: they are told of it first, as of something that is no concern of theirs.
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

  /** What is said of the requests of these names, or of all, to people: the first to come first. */
  requests({ requestIds }: RequestsQuery, nowMs: number): RequestsReply {
    const asked = requestIds && new Set(requestIds);
    const sequences = [...this.#requests.values()].filter((one) =>
      asked === undefined || asked.has(one.requestId)
    );
    return {
      requests: sequences.slice(0, MAX_LISTED_REQUESTS).map((sequence) => ({
        requestId: sequence.requestId,
        instanceId: this.#config.instanceId,
        priority: sequence.priority,
        state: sequence.status,
        promptTokens: sequence.promptTokenIds.length,
        outputTokens: sequence.outputTokenIds.length,
        ageMs: Math.max(0, nowMs - sequence.arrivalMs),
      })),
      numOmitted: Math.max(0, sequences.length - MAX_LISTED_REQUESTS),
    };
  }

  /** The epoch under which a request is owned; null for unknown ids. */
  epochOf(requestId: RequestId): OwnershipEpoch | null {
    return this.#requests.get(requestId)?.epoch ?? null;
  }

  /** The requests that may leave; none is suspended. */
  queues(): RequestQueues {
    return queuesOf(this.#scheduler, this.#blocks);
  }

  /** Lets what is to leave go on here. */
  clearExpectedSteps(): void {
    for (const sequence of this.#requests.values()) sequence.expectedSteps = null;
  }

  /** When a request that is held back goes on, if nothing happens before; else Infinity. */
  get heldUntilMs(): number {
    return this.#scheduler.heldUntilMs;
  }

  /** Begins to let a running or waiting request go; null when there is none of this name. */
  beginOutgoing(requestId: RequestId): OutgoingMigration | null {
    const sequence = this.#requests.get(requestId);
    const canLeave = sequence?.status === "waiting" ||
      (sequence?.status === "running" && sequence.numComputedTokens > 0);
    return canLeave ? new OutgoingMigration(this.#moveParts, sequence) : null;
  }

  /** Begins to take a request in; throws as {@linkcode IncomingMigration} does. */
  beginIncoming(request: IncomingRequest): IncomingMigration {
    return new IncomingMigration(this.#moveParts, request);
  }

  /** Tells the API server of a request that this instance owns it. */
  announce(requestId: RequestId): void {
    const sequence = this.#requests.get(requestId);
    if (sequence) this.#outputs.pushWord(sequence);
  }

  /** The next step, whose arrays are valid until the one after; null when nothing can run. */
  begin(nowMs: number): StepInput | null {
    let schedule;
    do {
      schedule = this.#scheduler.schedule(nowMs);
      this.#totals.preemptions += schedule.numPreempted;
      for (const { sequence, error } of schedule.failed) {
        this.#forget(sequence);
        this.#outputs.pushWord(sequence, { reason: "error", error: toErrorRecord(error) });
      }
      // Failures make room; a sequence that preempted itself may now be found never to fit.
    } while (
      schedule.sequences.length === 0 && schedule.failed.length + schedule.numPreempted > 0
    );
    if (schedule.sequences.length === 0) return null;
    this.#step = schedule;
    for (const sequence of schedule.sequences) sequence.isInStep = true;
    return this.#builder.build(schedule);
  }

  /**
   * Takes the result of the step that {@linkcode begin} gave.
   * @param nowMs for requests that want to know
   */
  end(result: StepOutput, nowMs = 0): void {
    const step = this.#step;
    if (!step || result.stepId !== this.#builder.stepId) {
      throw new Error(`result of step ${result.stepId}, expected ${this.#builder.stepId}`);
    }
    this.#step = null;
    let contextTokens = 0;
    for (let i = 0; i < step.sequences.length; i++) {
      const sequence = step.sequences[i];
      sequence.isInStep = false;
      contextTokens += sequence.lengthTokens;
      // An abort during the step has left the blocks to us.
      const error = result.failures?.[i];
      if (sequence.status === "finished") this.#blocks.free(sequence);
      else if (error) this.#finish(sequence, { reason: "error", error });
      else this.#append(sequence, result, i, nowMs);
    }
    if (step.kind === "prefill") this.#totals.promptTokens += step.numBatchedTokens;
    this.#totals.outputTokens += step.sequences.length;
    const lastStep = this.#lastStep;
    lastStep.kind = step.kind;
    lastStep.batchedTokens = step.numBatchedTokens;
    lastStep.sequences = step.sequences.length;
    lastStep.contextTokens = contextTokens;
    lastStep.latencyMs = result.latencyMs;
    if (this.#betweenSteps.length > 0) {
      for (const action of this.#betweenSteps.splice(0)) action();
    }
  }

  /** Hands over the outputs since the last call. */
  takeOutputs(): readonly AddressedOutputs[] {
    return this.#outputs.take();
  }

  /** The state now, and the requests that have come and ended since an info was taken. */
  info(nowMs: number): InstanceInfo {
    return this.#infoWith([...this.#finishedIds], [...this.#receivedIds], nowMs);
  }

  /** The same for a report: it is the one that tells of those requests. */
  takeInfo(nowMs: number): InstanceInfo {
    const info = this.#infoWith(this.#finishedIds, this.#receivedIds, nowMs);
    this.#finishedIds = [];
    this.#receivedIds = [];
    return info;
  }

  /**
   * Verifies blocks, tables and queues against each other; callable at any time.
   * @param inFlight as {@linkcode BlockManager.check} takes it
   * @throws {Error} saying what does not add up
   */
  check(inFlight?: BlocksInFlight): void {
    // What has ended in mid-step keeps its blocks until the step's end.
    const ended = this.#step?.sequences.filter(({ status }) => status === "finished") ?? [];
    this.#blocks.check([...this.#requests.values(), ...ended], inFlight);
    checkQueues(this.#scheduler, this.#requests);
    checkPlaces(this.#scheduler, this.#incoming);
  }

  #infoWith(
    finishedIds: readonly RequestId[],
    receivedIds: readonly RequestId[],
    nowMs: number,
  ): InstanceInfo {
    return instanceInfo(this.#infoParts, this.#step, finishedIds, receivedIds, nowMs);
  }

  #append(sequence: Sequence, result: StepOutput, row: number, nowMs: number): void {
    sequence.numComputedTokens = sequence.lengthTokens;
    sequence.numSteps++;
    sequence.append(result.tokenIds[row]);
    const finish = finishOf(sequence, this.#config.maxModelLen);
    this.#outputs.pushToken(sequence, result, row, nowMs, finish);
    if (finish) this.#remove(sequence);
  }

  /** Ends a request outside of a step's results. */
  #finish(sequence: Sequence, finish: Finish): void {
    this.#remove(sequence);
    this.#outputs.pushWord(sequence, finish);
  }

  /** Takes a sequence out of the scheduler; blocks that a step uses stay until it ends. */
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
    this.#builder.forget(sequence);
  }

  #accept(request: GenerateRequest): Sequence {
    this.#validate(request);
    const sequence = new Sequence(request, this.#numAccepted++);
    this.#requests.set(request.requestId, sequence);
    return sequence;
  }

  #runBetweenSteps(action: () => void): void {
    if (this.#step && !this.#failure) this.#betweenSteps.push(action);
    else action();
  }

  #runBetweenCopies(action: () => void): void {
    if (this.#step && this.#step.swapOut.length > 0) this.#runBetweenSteps(action);
    else action();
  }

  #validate(request: GenerateRequest): void {
    const { requestId, promptTokenIds, outputTokenIds } = request;
    if (this.#requests.has(requestId)) {
      throw new RequestError(`Request ${requestId} is being served already.`, "request_id");
    }
    if (promptTokenIds.length === 0) throw new RequestError("The prompt is empty.", "prompt");
    this.#validateTokens(promptTokenIds);
    this.#validateTokens(outputTokenIds);
  }

  #validateTokens(tokenIds: readonly number[]): void {
    const vocabSize = this.#vocabSize;
    for (const tokenId of tokenIds) {
      if (!Number.isInteger(tokenId) || tokenId < 0 || tokenId >= vocabSize) {
        throw new RequestError(
          `Token ${tokenId} is not in the vocabulary: expected integers from 0 to ${
            vocabSize - 1
          }.`,
          "prompt",
        );
      }
    }
  }
}
