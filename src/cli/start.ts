/**
 * Where every process and every worker thread of this program begins. The main thread runs the
 * command line; a worker is told its role by its name, because an executable has one entry module.
 */

/** Runs this thread's role. Ends the process when it is the main thread. */
export async function start(): Promise<void> {
  switch (workerName()) {
    case null: {
      nameProcess();
      const { main } = await import("./main.ts");
      Deno.exit(await main(Deno.args));
      break;
    }
    case "role:engine": {
      const { runEngineWorker } = await import("../executor/thread/worker_host.ts");
      return runEngineWorker();
    }
    case "role:tokenizer": {
      const { yieldToOthers } = await import("../../ffi/thread_policy.ts");
      const { runEncoderWorker } = await import("../frontend/encoding/encoder_worker.ts");
      yieldToOthers(); // streams of other requests come first
      return runEncoderWorker();
    }
    case "role:kernel": {
      const { runKernelWorker } = await import("../../ffi/cpu_kernels/wasm.ts");
      return runKernelWorker();
    }
    default:
      return await runBackendThread(workerName()!);
  }
}

/** @throws {Error} no worker thread of this program has such a name */
async function runBackendThread(workerName: string): Promise<void> {
  const { backendOfThread } = await import("../kv/transfer/backend_thread.ts");
  const { migrationBackends } = await import("../kv/transfer/backends.ts");
  const name = backendOfThread(workerName);
  const runThread = migrationBackends.find((kind) => kind.name === name)?.runThread;
  if (!runThread) throw new Error(`no role is called "${workerName}"`);
  await runThread();
}

/** `ps`, `top` and the journal show this name instead of the runtime's. Linux only. */
function nameProcess(): void {
  try {
    Deno.writeTextFileSync("/proc/self/comm", "llumnix"); // proc(5): the name of the main thread
  } catch {
    // Another system, or no procfs.
  }
}

/** The name given to this worker, or null on the main thread. */
function workerName(): string | null {
  const scope = globalThis as { WorkerGlobalScope?: unknown; name?: string };
  return scope.WorkerGlobalScope === undefined ? null : scope.name ?? "";
}
