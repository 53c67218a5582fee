import type { Clock } from "../../core/clock.ts";
import { type ErrorRecord, LlumnixError, UnavailableError } from "../../core/errors.ts";
import type { RequestsQuery, RequestsReply } from "../../core/protocol/admin.ts";
import type { GenerateRequest, OwnershipEpoch, RequestId } from "../../core/protocol/generate.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";
import type { Executor, StepInput, StepOutput } from "../../executor/executor.ts";
import type { IncomingMigration, IncomingRequest } from "./incoming_migration.ts";
import type { BlocksInFlight } from "./block_manager.ts";
import type { OutgoingMigration } from "./outgoing_migration.ts";
import type { EngineConfig } from "./engine_config.ts";
import { EngineCore } from "./engine_core.ts";
import type { AddressedOutputs } from "./pending_outputs.ts";
import type { RequestQueues } from "../llumlet/request_choice/policy.ts";
import { StepWatch } from "./step_watch.ts";

export type { AddressedOutputs, EngineConfig };

export interface EngineArgs {
  readonly config: EngineConfig;
  /** Owned by the engine: {@linkcode Engine.close} closes it. */
  readonly executor: Executor;
  readonly clock: Clock;
  /**
   * Called with the outputs of a step, and when a request ends or moves between two steps. Must be
   * fast and must not throw.
   */
  readonly onOutputs: (outputs: readonly AddressedOutputs[]) => void;
  /** Called after every scheduling decision, and after every step if `isInfoDue` says so. */
  readonly onInfo?: (info: InstanceInfo) => void;
  /**
   * Whether to report after a step, although a decision follows at once and reports again. Default:
   * yes.
   */
  readonly isInfoDue?: (isIdle: boolean) => boolean;
  /** The executor failed, or its step hangs. All requests have ended; the engine is dead. */
  readonly onFatal: (error: unknown) => void;
}

/**
 * Runs an {@linkcode EngineCore} on an executor: step after step, as long as there are requests.
 * Callbacks drive it, so that between two steps there is one turn of the clock, and no promise if
 * the executor needs none.
 */
export class Engine {
  readonly #args: EngineArgs;
  readonly #core: EngineCore;
  readonly #stepWatch: StepWatch;
  /** `due`: the next step is decided in the next turn of the clock. */
  #phase: "idle" | "due" | "stepping" = "idle";
  /** Requests or blocks have changed since the last decision began. */
  #hasNews = false;
  #idleWaiters: (() => void)[] = [];
  #stepWaiters: (() => void)[] = [];
  #cancelAlarm: (() => void) | null = null;
  /** Why the engine accepts no more requests: it is closing or dead. Null while it works. */
  #ended: ErrorRecord | null = null;

  constructor(args: EngineArgs) {
    this.#args = args;
    this.#core = new EngineCore(args.config, args.executor.info, () => this.#move());
    this.#stepWatch = new StepWatch({
      ...args.config,
      clock: args.clock,
      onHang: (limitMs) => this.#failHangingStep(limitMs),
    });
    this.#decideSoon();
  }

  /**
   * Queues a request; its outputs go to `onOutputs`.
   * @throws {RequestError} it can never be served
   * @throws {OverloadedError} the queue is full
   * @throws {UnavailableError} the engine is closed or dead
   */
  add(request: GenerateRequest): void {
    if (this.#ended) throw new UnavailableError(this.#ended.message);
    try {
      this.#core.add(request);
    } finally {
      this.#signal(); // also of a refused request: the manager counts its load until it is reported
    }
  }

  /** Ends a request, also while it is in a step; unknown ids are ignored. */
  abort(requestId: RequestId): void {
    this.#core.abort(requestId);
    this.#signal();
  }

  has(requestId: RequestId): boolean {
    return this.#core.has(requestId);
  }

  /** See {@linkcode EngineCore.requests}. */
  requests(query: RequestsQuery): RequestsReply {
    return this.#core.requests(query, this.#args.clock.nowMs());
  }

  /** The ownership epoch of a request; null for unknown ids. */
  epochOf(requestId: RequestId): OwnershipEpoch | null {
    return this.#core.epochOf(requestId);
  }

  /** Milliseconds in which a token of a prompt is computed; null before the first prompt. */
  get prefillTokenMs(): number | null {
    return this.#core.prefillTokenMs;
  }

  /** The requests that may migrate. */
  queues(): RequestQueues {
    return this.#core.queues();
  }

  /** See {@linkcode EngineCore.clearExpectedSteps}. */
  clearExpectedSteps(): void {
    this.#core.clearExpectedSteps();
    this.#signal();
  }

  /** See {@linkcode EngineCore.beginOutgoing}. */
  beginOutgoing(requestId: RequestId): OutgoingMigration | null {
    return this.#core.beginOutgoing(requestId);
  }

  /** See {@linkcode EngineCore.beginIncoming}. */
  beginIncoming(request: IncomingRequest): IncomingMigration {
    return this.#core.beginIncoming(request);
  }

  /** Tells the API server of a request at once that this instance owns the request. */
  announce(requestId: RequestId): void {
    this.#core.announce(requestId);
    this.#publishOutputs();
  }

  /** The state between the last step and the next. */
  info(): InstanceInfo {
    return this.#core.info(this.#args.clock.nowMs());
  }

  /** See {@linkcode EngineCore.takeInfo}. */
  takeInfo(): InstanceInfo {
    return this.#core.takeInfo(this.#args.clock.nowMs());
  }

  /** A hanging step is noticed after this time at the latest; null: steps may take any time. */
  get longestStepMs(): number | null {
    const { stepTimeoutMs, maxNumBatchedTokens } = this.#args.config;
    return stepTimeoutMs === Infinity ? null : this.#stepWatch.longestMs(maxNumBatchedTokens);
  }

  /** No request is left and no step runs. */
  get isIdle(): boolean {
    return this.#ended !== null || this.#core.isIdle;
  }

  /** Resolves when no request is left and no step runs. */
  idle(): Promise<void> {
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /**
   * Verifies blocks and queues. May be called at any time.
   * @param inFlight see {@linkcode BlockManager.check}
   * @throws {Error} naming the first inconsistency
   */
  check(inFlight?: BlocksInFlight): void {
    this.#core.check(inFlight);
  }

  /** Ends all requests, waits for the running step, and closes the executor. Idempotent. */
  async close(): Promise<void> {
    this.#end({ kind: "unavailable", message: "the instance is stopping" });
    if (this.#phase === "stepping") {
      await new Promise<void>((resolve) => this.#stepWaiters.push(resolve));
    }
    this.#stepWatch.close();
    await this.#args.executor.close();
  }

  #move(): void {
    this.#publishOutputs();
    this.#signal();
  }

  #signal(): void {
    this.#hasNews = true;
    if (this.#ended) return;
    if (this.#phase === "idle") this.#decideSoon();
  }

  /** In the next turn of the clock, so that all requests and aborts of this turn count. */
  #decideSoon(): void {
    this.#phase = "due";
    this.#args.clock.soon(this.#decide);
  }

  readonly #decide = (): void => {
    if (this.#ended) return;
    try {
      this.#hasNews = false;
      const step = this.#core.begin(this.#args.clock.nowMs());
      this.#publishInfo();
      if (step) this.#startStep(step);
      else this.#rest();
    } catch (error) {
      this.#phase = "idle";
      this.#die(error);
    }
  };

  #startStep(step: StepInput): void {
    const { executor } = this.#args;
    this.#phase = "stepping";
    this.#stepWatch.begin(step.tokenIds.length);
    if (executor.pipeline && this.#core.canBeginAhead) {
      executor.pipeline.start(step).then(this.#goAheadSoon, this.#failStep);
    } else if (executor.startStep) executor.startStep(step, this.#endStep, this.#failStep);
    else executor.step(step).then(this.#endStep, this.#failStep);
  }

  /** In the next turn of the clock, as a decision. */
  readonly #goAheadSoon = (): void => this.#args.clock.soon(this.#goAhead);

  /** Gives the executor the next step while it runs one, or waits for that one alone. */
  readonly #goAhead = (): void => {
    if (this.#phase !== "stepping") return; // the step was given up as hanging
    const pipeline = this.#args.executor.pipeline!;
    try {
      const next = this.#core.beginAhead();
      if (next) this.#publishInfo();
      const answer = next ? pipeline.follow(next) : pipeline.collect();
      answer.then(this.#endStep, this.#failStep);
    } catch (error) {
      this.#failStep(error);
    }
  };

  readonly #endStep = (result: StepOutput): void => {
    if (this.#phase !== "stepping") return; // the step was given up as hanging
    this.#stepWatch.end();
    this.#phase = "due"; // so that callbacks from here request no decision of their own
    try {
      this.#core.end(result, this.#args.clock.nowMs());
      this.#publishOutputs();
      const isIdle = this.#core.numRequests === 0;
      if (this.#args.isInfoDue?.(isIdle) !== false) this.#publishInfo();
      const { step } = this.#core;
      if (step !== null) {
        this.#phase = "stepping";
        this.#stepWatch.begin(step.numBatchedTokens);
        return this.#goAheadSoon();
      }
      this.#decideSoon();
    } catch (error) {
      this.#phase = "idle";
      this.#die(error);
    }
    this.#resolveAll(this.#stepWaiters);
  };

  #failHangingStep(limitMs: number): void {
    const { kind, numBatchedTokens, sequences } = this.#core.step!;
    const what = `${kind}, ${sequences.length} sequences, ${numBatchedTokens} tokens`;
    const message = `a step (${what}) did not end in ${limitMs / 1000} s (--step-timeout)`;
    this.#failStep(new LlumnixError("internal", message));
  }

  readonly #failStep = (error: unknown): void => {
    if (this.#phase !== "stepping") return;
    this.#stepWatch.end();
    this.#phase = "idle";
    this.#die(error);
    this.#resolveAll(this.#stepWaiters);
  };

  /** No request can run until something changes. */
  #rest(): void {
    this.#publishOutputs();
    this.#phase = "idle";
    if (this.#hasNews) return this.#decideSoon();
    this.#wakeAt(this.#core.heldUntilMs);
    if (this.#core.isIdle) this.#resolveAll(this.#idleWaiters);
  }

  #wakeAt(timeMs: number): void {
    this.#cancelAlarm?.();
    this.#cancelAlarm = null;
    if (timeMs === Infinity) return;
    const { clock } = this.#args;
    this.#cancelAlarm = clock.after(timeMs - clock.nowMs(), () => this.#signal());
  }

  #die(error: unknown): void {
    if (this.#ended) return;
    const reason = error instanceof Error ? error.message : String(error);
    this.#end({ kind: "internal", message: `the engine failed: ${reason}` });
    this.#args.onFatal(error);
  }

  #end(error: ErrorRecord): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#cancelAlarm?.();
    this.#core.fail(error);
    this.#publishOutputs();
    this.#resolveAll(this.#idleWaiters);
  }

  #publishOutputs(): void {
    const outputs = this.#core.takeOutputs();
    if (outputs.length > 0) this.#args.onOutputs(outputs);
  }

  #publishInfo(): void {
    this.#args.onInfo?.(this.takeInfo());
  }

  #resolveAll(waiters: (() => void)[]): void {
    if (waiters.length === 0) return; // the common case, after every step
    for (const resolve of waiters.splice(0)) resolve();
  }
}
