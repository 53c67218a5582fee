import { setImmediate } from "node:timers";
import type { Clock } from "../core/clock.ts";
import { type ErrorRecord, UnavailableError } from "../core/errors.ts";
import type { GenerateRequest, InstanceInfo, RequestId } from "../core/messages.ts";
import type { Executor } from "../executor/executor.ts";
import type { EngineConfig } from "./engine_config.ts";
import { type AddressedOutput, EngineCore } from "./engine_core.ts";

export type { AddressedOutput, EngineConfig };

export interface EngineArgs {
  readonly config: EngineConfig;
  /** Owned by the engine from here on: `close` closes it. */
  readonly executor: Executor;
  readonly clock: Clock;
  /** Called at most once per step with what it produced. Must be quick and must not throw. */
  readonly onOutputs: (outputs: readonly AddressedOutput[]) => void;
  /** Called after every scheduling decision and every step. */
  readonly onInfo?: (info: InstanceInfo) => void;
  /** The executor died; all requests have ended with an error, and nothing runs any more. */
  readonly onFatal: (error: unknown) => void;
}

/** Runs an {@linkcode EngineCore} on an executor, step after step, while there are requests. */
export class Engine {
  readonly #args: EngineArgs;
  readonly #core: EngineCore;
  readonly #loop: Promise<void>;
  /** Something was added or aborted since the last decision. */
  #hasNews = false;
  #wake: (() => void) | null = null;
  #idleWaiters: (() => void)[] = [];
  /** Set once the engine is closing or dead: why nothing is accepted any more. */
  #ended: ErrorRecord | null = null;

  constructor(args: EngineArgs) {
    this.#args = args;
    this.#core = new EngineCore(args.config, args.executor.info);
    this.#loop = this.#run();
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
      this.#signal(); // of a refused one too: the manager waits to hear of it
    }
  }

  /** Ends a request, also in mid-step; unknown ids are ignored. */
  abort(requestId: RequestId): void {
    this.#core.abort(requestId);
    this.#signal();
  }

  /** The state between the last step and the next. */
  info(): InstanceInfo {
    return this.#core.info(this.#args.clock.nowMs());
  }

  /** Resolves when no request is left and no step runs. */
  idle(): Promise<void> {
    if (this.#ended || this.#core.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Verifies blocks and queues; callable while idle. Throws what does not add up. */
  check(): void {
    this.#core.check();
  }

  /** Ends what is left with an error, waits for the running step, closes the executor. Idempotent. */
  async close(): Promise<void> {
    this.#end({ kind: "unavailable", message: "the instance is stopping" });
    this.#signal();
    await this.#loop;
    await this.#args.executor.close();
  }

  async #run(): Promise<void> {
    try {
      while (!this.#ended) await this.#runStep();
    } catch (error) {
      if (this.#ended) return;
      const reason = error instanceof Error ? error.message : String(error);
      this.#end({ kind: "internal", message: `the engine failed: ${reason}` });
      this.#args.onFatal(error);
    }
  }

  async #runStep(): Promise<void> {
    // Requests and aborts that have arrived take part in the decision.
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.#ended) return;
    this.#hasNews = false;
    const step = this.#core.begin(this.#args.clock.nowMs());
    this.#publishInfo();
    if (!step) return this.#waitForWork();
    const result = await this.#args.executor.step(step);
    this.#core.end(result);
    this.#publishOutputs();
    this.#publishInfo();
  }

  async #waitForWork(): Promise<void> {
    this.#publishOutputs();
    if (!this.#hasNews && this.#core.isIdle) this.#resolveIdle();
    if (this.#hasNews) return;
    await new Promise<void>((resolve) => this.#wake = resolve);
    this.#wake = null;
  }

  #signal(): void {
    this.#hasNews = true;
    this.#wake?.();
  }

  #end(error: ErrorRecord): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#core.fail(error);
    this.#publishOutputs();
    this.#resolveIdle();
  }

  #publishOutputs(): void {
    const outputs = this.#core.takeOutputs();
    if (outputs.length > 0) this.#args.onOutputs(outputs);
  }

  #publishInfo(): void {
    this.#args.onInfo?.(this.info());
  }

  #resolveIdle(): void {
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const resolve of waiters) resolve();
  }
}
