import { DriverTooOldError, NoDeviceError, NoDriverError } from "../../../../ffi/cuda/errors.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { LibraryNotFoundError, LibraryVersionError } from "../../../../ffi/library.ts";
import { Nccl } from "../../../../ffi/nccl/nccl.ts";
import { UnavailableError, UsageError } from "../../../core/errors.ts";
import type { BackendContext } from "../backend_kind.ts";
import { NcclBackend } from "./nccl_backend.ts";

/** Read by libnccl when it makes a communicator. */
const INTERFACES = "NCCL_SOCKET_IFNAME";

/** Errors that only another host, or an installation, can end. */
const lasting = [
  LibraryNotFoundError,
  LibraryVersionError,
  NoDriverError,
  DriverTooOldError,
  NoDeviceError,
];

const ONE_DEVICE =
  "one device, two instances: NCCL takes one rank a device, and this host shows one " +
  "device; choose kvtransfer with --migration-backend-transfer-type cuda_ipc, or rayrpc";

/** What keeps two instances of this host from exchanging blocks by NCCL; null if nothing does. */
export function ncclProblem(): string | null {
  try {
    Nccl.open();
    return openCuda().deviceCount() === 1 ? ONE_DEVICE : null;
  } catch (error) {
    if (!lasting.some((kind) => error instanceof kind)) throw error;
    return (error as Error).message;
  }
}

/**
 * Keeps NCCL's sockets, which prove nothing, at the loopback interface if all instances are on this host.
 * By default NCCL listens at the host's addresses on the network.
 */
export function keepToHost(host: string, env: Pick<Deno.Env, "has" | "set"> = Deno.env): void {
  const isAlone = host.startsWith("127.") || host === "::1";
  if (isAlone && !env.has(INTERFACES)) env.set(INTERFACES, "lo");
}

/**
 * Opens libnccl and CUDA on the pool's device, and the backend over them.
 * @throws {UsageError} the host has no libnccl, no CUDA or no device
 * @throws {UnavailableError} the device cannot be used now
 */
export function openNccl(context: BackendContext): NcclBackend {
  const { instanceId, model, pool, clock, openLinks } = context;
  if (pool.memory !== "device") {
    throw new UsageError("--migration-backend nccl moves KV blocks of a device only");
  }
  keepToHost(context.host);
  try {
    const cuda = openCuda();
    cuda.setDevice(pool.ordinal);
    const nccl = Nccl.open();
    const device = context.mayShareDevice ? "" : cuda.deviceInfo(pool.ordinal).uuid;
    const links = openLinks();
    return new NcclBackend({ instanceId, model, pool, clock, links, nccl, cuda, device });
  } catch (error) {
    const message = `--migration-backend nccl: ${(error as Error).message}`;
    if (lasting.some((kind) => error instanceof kind)) throw new UsageError(message);
    throw new UnavailableError(message);
  }
}
