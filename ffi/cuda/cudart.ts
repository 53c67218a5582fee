/** `Cuda` over libcudart 11, 12 and 13. */
import type { Library, OpenOptions } from "../library.ts";
import { openEach } from "../library.ts";
import { libraries } from "../library_search.ts";
import { textAt } from "../memory.ts";
import { type BatchCall, bytes, CudaBinding, type DeviceIdentity } from "./binding.ts";
import {
  batchSignature,
  commonSymbols,
  type FunctionNames,
  oldBatchSignature,
} from "./common_symbols.ts";
import type { Cuda, CudaLibrary } from "./cuda.ts";
import { DeviceIdentities } from "./device_identities.ts";
import {
  CudaError,
  driverInsufficient,
  DriverTooOldError,
  errorCodes,
  NoDriverError,
} from "./errors.ts";

const names: FunctionNames = {
  driverVersion: "cudaDriverGetVersion",
  deviceCount: "cudaGetDeviceCount",
  deviceAttribute: "cudaDeviceGetAttribute",
  devicePciBusId: "cudaDeviceGetPCIBusId",
  canAccessPeer: "cudaDeviceCanAccessPeer",
  memGetInfo: "cudaMemGetInfo",
  malloc: "cudaMalloc",
  free: "cudaFree",
  hostAlloc: "cudaHostAlloc",
  hostFree: "cudaFreeHost",
  hostRegister: "cudaHostRegister",
  hostUnregister: "cudaHostUnregister",
  hostDevicePointer: "cudaHostGetDevicePointer",
  priorityRange: "cudaDeviceGetStreamPriorityRange",
  streamCreate: "cudaStreamCreateWithPriority",
  streamDestroy: "cudaStreamDestroy",
  streamQuery: "cudaStreamQuery",
  streamSynchronize: "cudaStreamSynchronize",
  streamWaitEvent: "cudaStreamWaitEvent",
  eventCreate: "cudaEventCreateWithFlags",
  eventDestroy: "cudaEventDestroy",
  eventRecord: "cudaEventRecord",
  eventQuery: "cudaEventQuery",
  eventSynchronize: "cudaEventSynchronize",
  eventElapsed: "cudaEventElapsedTime",
  ipcGetMem: "cudaIpcGetMemHandle",
  ipcOpenMem: "cudaIpcOpenMemHandle",
  ipcCloseMem: "cudaIpcCloseMemHandle",
  ipcGetEvent: "cudaIpcGetEventHandle",
  ipcOpenEvent: "cudaIpcOpenEventHandle",
};

export const cudartSymbols = {
  ...commonSymbols(names),
  cudaRuntimeGetVersion: { parameters: ["buffer"], result: "i32" },
  cudaSetDevice: { parameters: ["i32"], result: "i32" },
  cudaDeviceEnablePeerAccess: { parameters: ["i32", "u32"], result: "i32" },
  cudaMemcpyAsync: { parameters: ["u64", "u64", "u64", "i32", "u64"], result: "i32" },
  cudaMemsetAsync: { parameters: ["u64", "i32", "u64", "u64"], result: "i32" },
  cudaGetLastError: { parameters: [], result: "i32" },
  cudaGetErrorName: { parameters: ["i32"], result: "pointer" },
  cudaGetErrorString: { parameters: ["i32"], result: "pointer" },
  // From 12.8 on. One name with two signatures: see `batchOf`.
  batch: { name: "cudaMemcpyBatchAsync", ...batchSignature, optional: true },
  oldBatch: { name: "cudaMemcpyBatchAsync", ...oldBatchSignature, optional: true },
} as const;

type Symbols = Library<typeof cudartSymbols>["symbols"];

/** cudaMemcpyDefault: the library sees from the addresses where the memory is. */
export const memcpyDefault = 4;

/**
 * Opens the newest libcudart that the driver can serve. An older one, which works, comes before a newer
 * one that does not.
 * @throws {LibraryNotFoundError} if the host has no libcudart
 * @throws {DriverTooOldError} if the driver is too old for every libcudart that was found
 * @throws {NoDriverError} if there is none
 */
export function openCudart(options: OpenOptions = {}): Cuda {
  let refusal: DriverTooOldError | null = null;
  for (const library of openEach(libraries.cudart, cudartSymbols, options)) {
    const cuda = new RuntimeCuda(library, options);
    try {
      cuda.deviceCount();
      return cuda;
    } catch (error) {
      if (!(error instanceof DriverTooOldError)) throw error;
      refusal ??= error;
    }
  }
  throw refusal!;
}

class RuntimeCuda extends CudaBinding {
  override readonly library: CudaLibrary;
  readonly #call: Symbols;
  readonly #identities: DeviceIdentities;

  constructor(library: Library<typeof cudartSymbols>, options: OpenOptions) {
    const version = runtimeVersion(library.symbols);
    super(library.symbols, names, batchOf(library.symbols, version));
    this.#call = library.symbols;
    const { name, path, softwareDevice } = library;
    this.library = { api: "runtime", name, path, softwareDevice, version };
    this.#identities = new DeviceIdentities(options);
  }

  override setDevice(device: number): void {
    this.checked("cudaSetDevice", this.#call.cudaSetDevice(device));
    // Before CUDA 12 the context comes with the first call that needs it.
    this.checked("cudaFree", this.#call.free(0n));
  }

  override enablePeerAccess(peer: number): void {
    const code = this.#call.cudaDeviceEnablePeerAccess(peer, 0);
    if (code === errorCodes.CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED) this.#call.cudaGetLastError();
    else this.checked("cudaDeviceEnablePeerAccess", code);
  }

  override copy(destination: bigint, source: bigint, byteLength: number, stream: bigint): void {
    const length = bytes(byteLength);
    const code = this.#call.cudaMemcpyAsync(destination, source, length, memcpyDefault, stream);
    this.checked("cudaMemcpyAsync", code);
  }

  override memset(address: bigint, byte: number, byteLength: number, stream: bigint): void {
    const code = this.#call.cudaMemsetAsync(address, byte, bytes(byteLength), stream);
    this.checked("cudaMemsetAsync", code);
  }

  protected override identity(device: number): DeviceIdentity {
    return this.#identities.of(device);
  }

  protected override describe(code: number): { codeName: string; text: string } {
    return {
      codeName: textAt(this.#call.cudaGetErrorName(code)),
      text: textAt(this.#call.cudaGetErrorString(code)),
    };
  }

  protected override failure(call: string, code: number): Error {
    // The library also keeps a returned error for the next cudaGetLastError of this thread: clear it.
    this.#call.cudaGetLastError();
    if (code !== driverInsufficient) return super.failure(call, code);
    const failure = { call, code, ...this.describe(code) };
    const version = new Int32Array(1);
    this.#call.driverVersion(version);
    return version[0] === 0
      ? new NoDriverError(new CudaError(failure).message)
      : new DriverTooOldError(failure, version[0], this.library.version);
  }
}

/** CUDA 11 does not tell its version without a driver: its oldest one then. */
function runtimeVersion(call: Symbols): number {
  const version = new Int32Array(1);
  return call.cudaRuntimeGetVersion(version) === errorCodes.CUDA_SUCCESS ? version[0] : 11000;
}

function batchOf({ batch, oldBatch }: Symbols, version: number): BatchCall | null {
  if (batch === null || oldBatch === null) return null;
  if (version >= 13000) {
    return (destinations, sources, sizes, count, attributes, indices, stream) =>
      batch(destinations, sources, sizes, count, attributes, indices, 1n, stream);
  }
  const failed = new BigUint64Array(1);
  return (destinations, sources, sizes, count, attributes, indices, stream) =>
    oldBatch(destinations, sources, sizes, count, attributes, indices, 1n, failed, stream);
}
