/** The thread of a backend: a worker of this program, which its name tells which backend it runs. */
import type { BackendName } from "./backend_kind.ts";

const PREFIX = "role:transfer:";

/** Starts a worker that calls `runThread` of the backend's {@linkcode BackendKind}. */
export function startBackendThread(name: BackendName): Worker {
  return new Worker(Deno.mainModule, { type: "module", name: `${PREFIX}${name}` });
}

/** The backend whose thread a worker of this name is; null for other workers. */
export function backendOfThread(workerName: string): BackendName | null {
  return workerName.startsWith(PREFIX) ? workerName.slice(PREFIX.length) as BackendName : null;
}
