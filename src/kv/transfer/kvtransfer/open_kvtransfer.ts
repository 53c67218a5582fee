import { openProcessMemory } from "../../../../ffi/process_memory.ts";
import { UsageError } from "../../../core/errors.ts";
import { isLoopback } from "../../../core/hosts.ts";
import { logger } from "../../../core/log.ts";
import type { BackendContext } from "../backend_kind.ts";
import { needsProtection } from "../protection.ts";
import { openCudaIpc } from "./cuda_ipc.ts";
import { ptraceScope } from "./host_conditions.ts";
import { thisProcess } from "./host_process.ts";
import { KvTransferBackend } from "./kvtransfer_backend.ts";
import { NamingDirectory } from "./naming.ts";
import type { UcxChoice } from "./pull_thread.ts";

const log = logger("kvtransfer");

/**
 * Opens the naming directory, and the backend over it.
 * @throws {UsageError} the transfer type is not for this pool, the naming directory cannot be used, or
 *   this system is not Linux
 */
export async function openKvTransfer(context: BackendContext): Promise<KvTransferBackend> {
  const { instanceId, model, pool, options, clock, openLinks } = context;
  const memory = openProcessMemory();
  if (memory === null) {
    throw new UsageError("--migration-backend kvtransfer needs Linux; choose rayrpc");
  }
  const isIpc = options.migrationBackendTransferType === "cuda_ipc";
  if (pool.memory === "device" && !isIpc) {
    throw new UsageError(
      "--migration-backend-transfer-type rdma moves KV blocks in host memory only, and this device " +
        "keeps them in its own: choose cuda_ipc",
    );
  }
  if (pool.memory !== "device" && isIpc) {
    throw new UsageError(
      "--migration-backend-transfer-type cuda_ipc moves KV blocks between CUDA devices, and this " +
        "device keeps them in host memory: choose rdma",
    );
  }
  // Where it is 1, the kernel lets only ancestors read a process that has not agreed to more.
  if (ptraceScope() === 1) memory.allowReaders();
  const naming = NamingDirectory.open(options.migrationBackendKvtransferNamingUrl);
  const process = thisProcess();
  const device = pool.memory === "device" ? openCudaIpc(pool) : undefined;
  return await KvTransferBackend.open({
    ...{ instanceId, model, pool, naming, process, clock, device },
    links: openLinks(),
    ucx: ucxChoice(context),
  });
}

/**
 * UCX, for instances of other hosts. It neither encrypts nor authenticates: over TCP anyone who reaches its
 * port can read and write the memory of the process.
 */
function ucxChoice(context: BackendContext): UcxChoice | undefined {
  if (isLoopback(context.host)) return undefined; // the manager has instances of this host only
  if (!needsProtection(context)) return {};
  log.warn(
    "requests move between instances of this host only: UCX, which kvtransfer needs between hosts, " +
      "cannot use the cluster key. Choose --migration-backend gloo, rayrpc or grpc, or " +
      "--migration-insecure for a network that nobody else is on",
  );
  return undefined;
}
