import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import { DriverTooOldError, NoDeviceError, NoDriverError } from "../../../../ffi/cuda/errors.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { LibraryNotFoundError, LibraryVersionError } from "../../../../ffi/library.ts";
import { Nccl } from "../../../../ffi/nccl/nccl.ts";
import { UnavailableError, UsageError } from "../../../core/errors.ts";
import { isLoopback } from "../../../core/hosts.ts";
import { shardLayout } from "../../layout.ts";
import { type DevicePool, shardsOf } from "../../pool/pool.ts";
import type { BackendContext } from "../backend_kind.ts";
import { keepToHost } from "./interfaces.ts";
import { NcclBackend, type NcclBackendArgs } from "./nccl_backend.ts";
import { ShardedNcclBackend } from "./sharded_nccl_backend.ts";

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
 * Opens libnccl and CUDA on the pool's devices, and the backend over them.
 * @throws {UsageError} the host has no libnccl, no CUDA or no device
 * @throws {UnavailableError} the device cannot be used now
 */
export function openNccl(context: BackendContext): NcclBackend | ShardedNcclBackend {
  const { pool } = context;
  if (pool.memory !== "device") {
    throw new UsageError("--migration-backend nccl moves KV blocks of a device only");
  }
  if (shardsOf(pool).length > 1 && !isLoopback(context.host)) {
    throw new UsageError(
      "--migration-backend nccl: the ranks of --tensor-parallel-size keep NCCL to this host, and instances " +
        "of other hosts cannot be reached by it. Choose --migration-backend gloo, rayrpc or grpc",
    );
  }
  keepToHost(context.host);
  try {
    const cuda = openCuda();
    const deviceOf = (ordinal: number) => {
      cuda.setDevice(ordinal); // which fails where the device cannot be used
      return context.mayShareDevice ? "" : cuda.deviceInfo(ordinal).uuid;
    };
    return ncclOver({ ...context, pool }, cuda, Nccl.open(), deviceOf);
  } catch (error) {
    const message = `--migration-backend nccl: ${(error as Error).message}`;
    if (lasting.some((kind) => error instanceof kind)) throw new UsageError(message);
    throw new UnavailableError(message);
  }
}

/**
 * A backend over libraries that are open, with one inside for each device if the pool has several.
 * @param deviceOf the UUID of a device, "" if it is not known
 */
export function ncclOver(
  { instanceId, model, pool, clock, openLinks }:
    & Pick<BackendContext, "instanceId" | "model" | "clock" | "openLinks">
    & { readonly pool: DevicePool },
  cuda: Cuda,
  nccl: Nccl,
  deviceOf: (ordinal: number) => string,
): NcclBackend | ShardedNcclBackend {
  const layout = shardLayout(pool.layout), { numBlocks } = pool;
  const shards = shardsOf(pool);
  const backends = shards.map(({ ordinal, address }, shard) =>
    new NcclBackend({
      ...{ instanceId, model, clock, links: openLinks(), device: deviceOf(ordinal) },
      pool: { layout, numBlocks, ordinal, address },
      ...(shards.length > 1 && { shard }),
      ...onDevice(cuda, nccl, ordinal),
    })
  );
  if (backends.length === 1) return backends[0];
  return new ShardedNcclBackend({ model, layout: pool.layout, clock, backends });
}

/** The libraries as a backend of one device has them: what belongs to a device is made on that one. */
function onDevice(
  cuda: Cuda,
  nccl: Nccl,
  ordinal: number,
): Pick<NcclBackendArgs, "cuda" | "nccl"> {
  const here = <T>(make: () => T): T => {
    cuda.setDevice(ordinal);
    return make();
  };
  return {
    cuda: {
      createEvent: (options) => here(() => cuda.createEvent(options)),
      createStream: (options) => here(() => cuda.createStream(options)),
      recordEvent: (event, stream) => cuda.recordEvent(event, stream),
      queryEvent: (event) => cuda.queryEvent(event),
      destroyEvent: (event) => cuda.destroyEvent(event),
      destroyStream: (stream) => cuda.destroyStream(stream),
    },
    nccl: {
      uniqueId: () => nccl.uniqueId(),
      initRank: (...args) => here(() => nccl.initRank(...args)),
      asyncState: (communicator) => nccl.asyncState(communicator),
      groupStart: () => nccl.groupStart(),
      groupEnd: () => nccl.groupEnd(),
      send: (...args) => nccl.send(...args),
      receive: (...args) => nccl.receive(...args),
      finalize: (communicator) => nccl.finalize(communicator),
      abort: (communicator) => nccl.abort(communicator),
      destroy: (communicator) => nccl.destroy(communicator),
    },
  };
}
