import { fromErrorRecord } from "../../core/errors.ts";
import { selfCommand } from "../../core/self_command.ts";
import { openPool } from "../../kv/pool/open_pool.ts";
import type { KvPool } from "../../kv/pool/pool.ts";
import type {
  Executor,
  ExecutorInfo,
  ExecutorSpec,
  OnProgress,
  StepInput,
  StepOutput,
  StepPipeline,
} from "../executor.ts";
import { StepMemory, type StepRequest } from "../step_memory.ts";
import type { WorkerReply, WorkerRequest } from "./worker_host.ts";

export interface ThreadedExecutorOptions {
  readonly onProgress?: OnProgress;
  /** One that has started already. */
  readonly worker?: EngineWorker;
}

/** A worker that waits for the executor that it shall load. */
export interface EngineWorker {
  readonly channel: WorkerChannel;
  /** It takes requests. Rejects when it has died. */
  readonly ready: Promise<unknown>;
}

/** Starts a worker that calls `runEngineWorker`; by default this program in the role `engine`. */
export function startEngineWorker(start = startOwnWorker): EngineWorker {
  const channel = new WorkerChannel(start());
  const ready = channel.receive("ready");
  ready.catch(() => {}); // the one that loads gets the error
  return { channel, ready };
}

/**
 * Loads an executor in a worker, so that its steps do not hold up this thread's event loop.
 * @throws {ModelError} the model cannot be read or is not supported
 * @throws {UsageError} options that the executor cannot meet
 */
export async function loadThreadedExecutor(
  spec: ExecutorSpec,
  options: ThreadedExecutorOptions = {},
): Promise<Executor> {
  const { channel, ready } = options.worker ?? startEngineWorker();
  channel.onProgress = options.onProgress;
  const memory = new StepMemory();
  try {
    await ready;
    const program = selfCommand();
    channel.post({ type: "load", spec, memory: memory.buffer, program });
    const { info, pool } = await channel.receive("loaded");
    return new ThreadedExecutor(channel, memory, info, pool && await openPool(pool));
  } catch (error) {
    channel.terminate("it could not be loaded");
    throw error;
  }
}

function startOwnWorker(): Worker {
  return new Worker(Deno.mainModule, { type: "module", name: "role:engine" });
}

class ThreadedExecutor implements Executor {
  readonly #channel: WorkerChannel;
  readonly #memory: StepMemory;
  readonly pipeline?: StepPipeline;
  #closing: Promise<void> | null = null;
  #step: Promise<unknown> = Promise.resolve();

  constructor(
    channel: WorkerChannel,
    memory: StepMemory,
    readonly info: ExecutorInfo,
    readonly pool: KvPool | null,
  ) {
    this.#channel = channel;
    this.#memory = memory;
    if (info.runsAhead) {
      this.pipeline = {
        start: async (input) => void await this.#call({ call: "start", input }),
        follow: (input) => this.#call({ call: "follow", input }),
        collect: () => this.#call({ call: "collect", input: null }),
      };
    }
  }

  step(input: StepInput): Promise<StepOutput> {
    return this.#call({ call: "step", input });
  }

  #call(request: StepRequest): Promise<StepOutput> {
    const output = this.#channel.receive("stepped").then((reply) => reply.output);
    this.#step = output.catch(() => {});
    if (this.#channel.isDead) return output;
    if (this.#memory.request(request)) {
      this.#memory.answer().then((output) => {
        if (output) this.#channel.settle({ type: "stepped", output });
      });
    } else {
      const input = request.input && compact(request.input);
      this.#request({ type: "step", request: { ...request, input } });
    }
    return output;
  }

  #request(request: WorkerRequest): void {
    this.#memory.requestByMessage();
    this.#channel.post(request);
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    await this.#step;
    if (this.pool?.memory === "device") await this.pool.close();
    try {
      if (this.#channel.isDead) return;
      this.#request({ type: "close" });
      await this.#channel.receive("closed");
    } finally {
      this.#channel.terminate("it is closed");
    }
  }
}

/** Gives each array a buffer of its own length: cloning a view would clone its whole buffer. */
function compact(input: StepInput): StepInput {
  return {
    ...input,
    swapOut: input.swapOut.slice(),
    swapIn: input.swapIn.slice(),
    handles: input.handles.slice(),
    tokenIds: input.tokenIds.slice(),
    queryStarts: input.queryStarts.slice(),
    contextLens: input.contextLens.slice(),
    blockTables: input.blockTables.slice(),
  };
}

type ReplyType = WorkerReply["type"];
type ReplyOf<T extends ReplyType> = Extract<WorkerReply, { type: T }>;

/** Messages to and from the worker, one request at a time. The first error ends the channel for good. */
class WorkerChannel {
  onProgress: OnProgress | undefined = undefined;
  readonly #worker: Worker;
  /** Why the channel has ended; null while it works. */
  #death: Error | null = null;
  #pending: {
    readonly type: ReplyType;
    readonly resolve: (reply: WorkerReply) => void;
    readonly reject: (error: Error) => void;
  } | null = null;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<WorkerReply>) => {
      if (data.type === "progress") this.onProgress?.(data.progress);
      else if (data.type === "failed") this.#die(fromErrorRecord(data.error), data.stack);
      else this.settle(data);
    };
    worker.onerror = (event) => {
      // An unhandled error of a worker would end this process.
      event.preventDefault();
      this.#die(new Error(`the engine worker died: ${event.message}`));
    };
    worker.onmessageerror = () =>
      this.#die(new Error("the engine worker sent a message that cannot be read"));
  }

  get isDead(): boolean {
    return this.#death !== null;
  }

  post(request: WorkerRequest): void {
    this.#worker.postMessage(request);
  }

  receive<T extends ReplyType>(type: T): Promise<ReplyOf<T>> {
    if (this.#death) return Promise.reject(this.#death);
    if (this.#pending) throw new Error("the engine worker is still busy with the previous request");
    return new Promise((resolve, reject) => {
      this.#pending = { type, resolve: resolve as (reply: WorkerReply) => void, reject };
    });
  }

  terminate(why: string): void {
    this.#die(new Error(`the executor has ended: ${why}`));
    this.#worker.terminate();
  }

  /** Takes a reply, from a message or from the shared memory. */
  settle(reply: WorkerReply): void {
    if (this.#death) return;
    const pending = this.#pending;
    if (pending?.type !== reply.type) {
      return this.#die(new Error(`the engine worker sent an unexpected reply: ${reply.type}`));
    }
    this.#pending = null;
    pending.resolve(reply);
  }

  #die(error: Error, stack?: string): void {
    if (this.#death) return;
    if (stack) error.stack = stack;
    this.#death = error;
    this.#pending?.reject(error);
    this.#pending = null;
  }
}
