/** The register of migration backends. `README.md` says how to add one. */
import { UsageError } from "../../core/errors.ts";
import type { KvMemory } from "../pool/pool.ts";
import type { MigrationBackend } from "./backend.ts";
import type { BackendContext, BackendKind, BackendName, BackendOptions } from "./backend_kind.ts";
import { gloo } from "./gloo/kind.ts";
import { grpc } from "./grpc/kind.ts";
import { kvtransfer } from "./kvtransfer/kind.ts";
import { nccl } from "./nccl/kind.ts";
import { needsProtection } from "./protection.ts";
import { rayrpc } from "./rayrpc/kind.ts";

/** Every backend there is. */
export const migrationBackends: readonly BackendKind[] = [
  gloo,
  kvtransfer,
  nccl,
  rayrpc,
  grpc,
];

/** The backend that `--migration-backend` names. A test compares the names with the register. */
export function backendKind(name: BackendName): BackendKind {
  return migrationBackends.find((kind) => kind.name === name)!;
}

/** Why the backend of this name cannot work with the options; null when it can. */
export function backendProblem(name: BackendName, options: BackendOptions): string | null {
  return backendKind(name).check?.(options) ?? null;
}

/**
 * Why a backend cannot move the blocks of a pool; null when it can.
 * @param owner of the pool, for people
 * @param register backends to choose from instead
 */
export function memoryProblem(
  { name, memory }: Pick<BackendKind, "name" | "memory">,
  poolMemory: KvMemory,
  owner: string,
  register: readonly Pick<BackendKind, "name" | "memory">[] = migrationBackends,
): string | null {
  if (memory.includes(poolMemory)) return null;
  const others = register
    .filter((kind) => kind.memory.includes(poolMemory))
    .map((kind) => kind.name);
  const moved = memory.map((kind) => kind === "none" ? "simulated memory" : `${kind} memory`);
  const kept = poolMemory === "none" ? "only counts them" : `keeps them in ${poolMemory} memory`;
  return `--migration-backend ${name} moves KV blocks in ${moved.join(" or ")}, and ${owner} ` +
    `${kept}: choose ${
      [others.slice(0, -1).join(", "), ...others.slice(-1)].filter(Boolean).join(" or ")
    }`;
}

/**
 * Opens one instance's end of a backend.
 * @param owner of the pool, for people
 * @throws {UsageError} the backend cannot work here, or not as safely as the cluster's key promises
 * @throws {UnavailableError} it cannot be opened now
 */
export async function openBackend(
  name: BackendName,
  owner: string,
  context: BackendContext,
): Promise<MigrationBackend> {
  const kind = backendKind(name);
  const problem = memoryProblem(kind, context.pool.memory, owner);
  if (problem !== null) throw new UsageError(problem);
  if (kind.isPlain && needsProtection(context)) {
    throw new UsageError(
      `--migration-backend ${name} neither encrypts nor authenticates its connections, and this service ` +
        "has a cluster key: choose another backend, or --migration-insecure for a network that nobody " +
        "else is on",
    );
  }
  return await kind.open(context);
}
