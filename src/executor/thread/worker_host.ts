/**
 * The worker's side of {@linkcode loadThreadedExecutor}: loads one executor and runs its steps, which
 * come through shared memory or, if they do not fit, as messages.
 */
import { yieldToOthers } from "../../../ffi/thread_policy.ts";
import { type ErrorRecord, toErrorRecord } from "../../core/errors.ts";
import { setSelfCommand } from "../../core/self_command.ts";
import { describePool } from "../../kv/pool/open_pool.ts";
import type { PoolDescription } from "../../kv/pool/pool.ts";
import { executorKind, loadExecutor } from "../devices.ts";
import type {
  Executor,
  ExecutorInfo,
  ExecutorSpec,
  LoadProgress,
  StepOutput,
} from "../executor.ts";
import { StepMemory, type StepRequest } from "../step_memory.ts";

/** Main thread to worker, one at a time: the next follows the answer to the previous one. */
export type WorkerRequest =
  | {
    readonly type: "load";
    readonly spec: ExecutorSpec;
    readonly memory: SharedArrayBuffer;
    /** See `selfCommand`. */
    readonly program: readonly string[];
  }
  | { readonly type: "step"; readonly request: StepRequest }
  | { readonly type: "close" };

/** Worker to main thread. `ready` comes first, unasked: the worker would miss messages sent before. */
export type WorkerReply =
  | { readonly type: "ready" }
  | { readonly type: "progress"; readonly progress: LoadProgress }
  | {
    readonly type: "loaded";
    readonly info: ExecutorInfo;
    readonly pool: PoolDescription | null;
  }
  | { readonly type: "stepped"; readonly output: StepOutput }
  | { readonly type: "closed" }
  | { readonly type: "failed"; readonly error: ErrorRecord; readonly stack?: string };

/** The used part of a worker's global scope. */
interface WorkerScope {
  postMessage(reply: WorkerReply, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<WorkerRequest>) => void) | null;
}

/** The entry of a worker with the role `engine`: serves the main thread that started it. */
export function runEngineWorker(
  load: typeof loadExecutor = loadExecutor,
): void {
  const scope = globalThis as unknown as WorkerScope;
  let executor: Executor | null = null;
  let memory: StepMemory | null = null;

  async function answer(request: WorkerRequest): Promise<void> {
    switch (request.type) {
      case "load":
        setSelfCommand(request.program);
        if (executorKind(request.spec.device).usesHostCores) yieldToOthers();
        executor = await load(
          request.spec,
          (progress) => scope.postMessage({ type: "progress", progress }),
        );
        memory = new StepMemory(request.memory);
        scope.postMessage({
          type: "loaded",
          info: executor.info,
          pool: executor.pool && describePool(executor.pool),
        });
        return await serveMemory(executor, memory);
      case "step": {
        const output = await run(executor!, request.request);
        scope.postMessage({ type: "stepped", output });
        return await serveMemory(executor!, memory!);
      }
      case "close":
        await executor?.close();
        return scope.postMessage({ type: "closed" });
    }
  }

  /** Runs steps from the shared memory until the next request is a message. */
  async function serveMemory(executor: Executor, memory: StepMemory): Promise<void> {
    for (let request = memory.nextRequest(); request; request = memory.nextRequest()) {
      const output = await run(executor, request);
      if (!memory.answerStep(output)) scope.postMessage({ type: "stepped", output });
    }
  }

  async function run(executor: Executor, { call, input }: StepRequest): Promise<StepOutput> {
    const pipeline = executor.pipeline!;
    switch (call) {
      case "step":
        return await executor.step(input!);
      case "start":
        await pipeline.start(input!);
        return { stepId: input!.stepId, tokenIds: new Int32Array(), latencyMs: 0 };
      case "follow":
        return await pipeline.follow(input!);
      case "collect":
        return await pipeline.collect();
    }
  }

  scope.onmessage = ({ data }) => {
    answer(data).catch((error) => {
      const stack = error instanceof Error ? error.stack : undefined;
      scope.postMessage({ type: "failed", error: toErrorRecord(error), stack });
    });
  };
  scope.postMessage({ type: "ready" });
}
