import type { TokenizerSource } from "../tokenizer.ts";
import type { EncoderReply, EncoderRequest } from "./encoder_worker.ts";
import type { Segment } from "./segment_encoder.ts";

export interface EncoderPoolOptions {
  readonly source: TokenizerSource;
  /** Starts a worker that calls `runEncoderWorker`. */
  readonly startWorker: () => Worker;
  /**
   * Most workers. Each takes a core while it encodes, and as much memory as the tokenizer: about 170 MB for a
   * vocabulary of 128,000 tokens, which takes about 2 s to load.
   */
  readonly maxWorkers: number;
  /** Told why a worker cannot be used. */
  readonly onFailure?: (message: string) => void;
}

interface Job {
  readonly segments: readonly Segment[];
  readonly resolve: (ids: readonly Uint32Array[]) => void;
  readonly reject: (error: Error) => void;
}

/** Characters of a job from which on it may need hundreds of megabytes: such jobs run one at a time. */
const HUGE_JOB = 512 * 1024;

/**
 * Encodes segments in worker threads. The workers start when they are first needed: one at once, another
 * whenever a job finds all of them busy, up to the bound. They stay until the pool is closed.
 */
export class EncoderPool implements Disposable {
  readonly #options: EncoderPoolOptions;
  readonly #workers = new Set<EncoderWorker>();
  #queue: Job[] = [];
  #hasFailed = false;
  #isHugeJobRunning = false;

  constructor(options: EncoderPoolOptions) {
    this.#options = options;
  }

  /** Most jobs that run at a time. */
  get maxWorkers(): number {
    return this.#options.maxWorkers;
  }

  /** At least one worker has loaded the tokenizer. */
  get isReady(): boolean {
    return [...this.#workers].some((worker) => worker.isLoaded);
  }

  /** A worker could not be started or died; no other is started. */
  get hasFailed(): boolean {
    return this.#hasFailed;
  }

  /** Starts the first worker, unless it is there. */
  start(): void {
    if (this.#workers.size === 0) this.#startWorker();
  }

  /**
   * The ids of each segment.
   * @throws {Error} the worker died, or none can be started
   */
  encode(segments: readonly Segment[]): Promise<readonly Uint32Array[]> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ segments, resolve, reject });
      this.#dispatch();
    });
  }

  [Symbol.dispose](): void {
    this.#hasFailed = true;
    for (const worker of this.#workers) worker.terminate();
    this.#workers.clear();
    this.#rejectAll("the tokenizer's workers are closed");
  }

  #dispatch(): void {
    const free = [...this.#workers].filter((worker) => worker.isFree);
    const waiting: Job[] = [];
    for (const job of this.#queue) {
      const isHuge = sizeOf(job) >= HUGE_JOB;
      const worker = isHuge && this.#isHugeJobRunning ? undefined : free.pop();
      if (worker === undefined) waiting.push(job);
      else this.#run(worker, job, isHuge);
    }
    this.#queue = waiting;
    if (waiting.length === 0) return;
    const isLoading = [...this.#workers].some((worker) => !worker.isLoaded);
    if (!isLoading && this.#workers.size < this.maxWorkers) this.#startWorker();
    if (this.#workers.size === 0) this.#rejectAll("the tokenizer's workers cannot be started");
  }

  async #run(worker: EncoderWorker, job: Job, isHuge: boolean): Promise<void> {
    if (isHuge) this.#isHugeJobRunning = true;
    try {
      job.resolve(await worker.encode(job.segments));
    } catch (error) {
      job.reject(error as Error);
    }
    if (isHuge) this.#isHugeJobRunning = false;
    this.#dispatch();
  }

  #startWorker(): void {
    if (this.#hasFailed) return;
    const { startWorker, source } = this.#options;
    const worker = new EncoderWorker(startWorker(), source, {
      onLoaded: () => this.#dispatch(),
      onDeath: (message) => this.#lose(worker, message),
    });
    this.#workers.add(worker);
  }

  #lose(worker: EncoderWorker, message: string): void {
    if (!this.#workers.delete(worker)) return;
    this.#hasFailed = true;
    worker.terminate();
    this.#options.onFailure?.(message);
    if (this.#workers.size === 0) this.#rejectAll(message);
  }

  #rejectAll(message: string): void {
    const queue = this.#queue;
    this.#queue = [];
    for (const { reject } of queue) reject(new Error(message));
  }
}

function sizeOf({ segments }: Job): number {
  return segments.reduce((sum, { text }) => sum + text.length, 0);
}

/** One worker: it loads the tokenizer, then takes one job at a time. */
class EncoderWorker {
  readonly #worker: Worker;
  isLoaded = false;
  #isDead = false;
  #pending: PromiseWithResolvers<readonly Uint32Array[]> | null = null;

  constructor(
    worker: Worker,
    source: TokenizerSource,
    private readonly events: { onLoaded: () => void; onDeath: (message: string) => void },
  ) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<EncoderReply>) => {
      switch (data.type) {
        case "started":
          return this.#post({ type: "load", source });
        case "loaded":
          this.isLoaded = true;
          return events.onLoaded();
        case "encoded":
          return this.#settle((pending) => pending.resolve(data.ids));
        case "failed":
          return this.#die(data.message);
      }
    };
    worker.onerror = (event) => {
      event.preventDefault(); // unhandled, it would end this process
      this.#die(`a tokenizer worker died: ${event.message}`);
    };
  }

  get isFree(): boolean {
    return this.isLoaded && !this.#isDead && this.#pending === null;
  }

  encode(segments: readonly Segment[]): Promise<readonly Uint32Array[]> {
    this.#pending = Promise.withResolvers();
    const { promise } = this.#pending;
    this.#post({ type: "encode", segments });
    return promise;
  }

  terminate(): void {
    this.#isDead = true;
    this.#worker.terminate();
    this.#settle((pending) => pending.reject(new Error("the tokenizer worker was stopped")));
  }

  #post(request: EncoderRequest): void {
    this.#worker.postMessage(request);
  }

  #settle(how: (pending: PromiseWithResolvers<readonly Uint32Array[]>) => void): void {
    const pending = this.#pending;
    this.#pending = null;
    if (pending !== null) how(pending);
  }

  #die(message: string): void {
    if (this.#isDead) return;
    this.#isDead = true;
    this.#settle((pending) => pending.reject(new Error(message)));
    this.events.onDeath(message);
  }
}
