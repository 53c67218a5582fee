/** `Cuda` over libcuda, for hosts that have only the driver. */
import { type Library, openLibrary, type OpenOptions } from "../library.ts";
import { libraries } from "../library_search.ts";
import { type BatchCall, bytes, CudaBinding, type DeviceIdentity } from "./binding.ts";
import {
  batchSignature,
  commonSymbols,
  type FunctionNames,
  oldBatchSignature,
} from "./common_symbols.ts";
import type { Cuda, CudaLibrary } from "./cuda.ts";
import { DeviceIdentities } from "./device_identities.ts";
import { describeDriverError, driverErrorSymbols } from "./driver_errors.ts";
import { errorCodes } from "./errors.ts";

const names: FunctionNames = {
  driverVersion: "cuDriverGetVersion",
  deviceCount: "cuDeviceGetCount",
  deviceAttribute: "cuDeviceGetAttribute",
  devicePciBusId: "cuDeviceGetPCIBusId",
  canAccessPeer: "cuDeviceCanAccessPeer",
  memGetInfo: "cuMemGetInfo_v2",
  malloc: "cuMemAlloc_v2",
  free: "cuMemFree_v2",
  hostAlloc: "cuMemHostAlloc",
  hostFree: "cuMemFreeHost",
  hostRegister: "cuMemHostRegister_v2",
  hostUnregister: "cuMemHostUnregister",
  hostDevicePointer: "cuMemHostGetDevicePointer_v2",
  priorityRange: "cuCtxGetStreamPriorityRange",
  streamCreate: "cuStreamCreateWithPriority",
  streamDestroy: "cuStreamDestroy_v2",
  streamQuery: "cuStreamQuery",
  streamSynchronize: "cuStreamSynchronize",
  streamWaitEvent: "cuStreamWaitEvent",
  eventCreate: "cuEventCreate",
  eventDestroy: "cuEventDestroy_v2",
  eventRecord: "cuEventRecord",
  eventQuery: "cuEventQuery",
  eventSynchronize: "cuEventSynchronize",
  eventElapsed: "cuEventElapsedTime",
  ipcGetMem: "cuIpcGetMemHandle",
  ipcOpenMem: "cuIpcOpenMemHandle_v2",
  ipcCloseMem: "cuIpcCloseMemHandle",
  ipcGetEvent: "cuIpcGetEventHandle",
  ipcOpenEvent: "cuIpcOpenEventHandle",
};

export const driverSymbols = {
  ...commonSymbols(names),
  cuInit: { parameters: ["u32"], result: "i32" },
  cuDeviceGet: { parameters: ["buffer", "i32"], result: "i32" },
  cuDevicePrimaryCtxRetain: { parameters: ["buffer", "i32"], result: "i32" },
  cuCtxSetCurrent: { parameters: ["u64"], result: "i32" },
  cuCtxEnablePeerAccess: { parameters: ["u64", "u32"], result: "i32" },
  cuMemcpyAsync: { parameters: ["u64", "u64", "u64", "u64"], result: "i32" },
  cuMemsetD8Async: { parameters: ["u64", "u8", "u64", "u64"], result: "i32" },
  ...driverErrorSymbols,
  // From driver 580 (CUDA 13) on, and from 570 (12.8) on.
  cuMemcpyBatchAsync_v2: { ...batchSignature, optional: true },
  cuMemcpyBatchAsync: { ...oldBatchSignature, optional: true },
} as const;

type Symbols = Library<typeof driverSymbols>["symbols"];

/**
 * Opens libcuda and initialises it.
 * @throws {LibraryNotFoundError} if the host has no NVIDIA driver
 * @throws {CudaError} if the driver does not come up. A driver without a device does: its
 * `deviceCount` is 0
 */
export function openDriver(options: OpenOptions = {}): Cuda {
  return new DriverCuda(openLibrary(libraries.cuda, driverSymbols, options), options);
}

class DriverCuda extends CudaBinding {
  override readonly library: CudaLibrary;
  readonly #call: Symbols;
  readonly #identities: DeviceIdentities;
  readonly #contexts = new Map<number, bigint>();
  readonly #handle = new BigUint64Array(1);

  constructor(library: Library<typeof driverSymbols>, options: OpenOptions) {
    super(library.symbols, names, batchOf(library.symbols));
    this.#call = library.symbols;
    this.#identities = new DeviceIdentities(options);
    const code = this.#call.cuInit(0);
    if (code !== errorCodes.CUDA_ERROR_NO_DEVICE) this.checked("cuInit", code);
    const { name, path, softwareDevice } = library;
    this.library = { api: "driver", name, path, softwareDevice, version: this.driverVersion() };
  }

  /** After `cuInit` found none, every other call says "not initialised". */
  override deviceCount(): number {
    return this.#call.cuInit(0) === errorCodes.CUDA_ERROR_NO_DEVICE ? 0 : super.deviceCount();
  }

  override setDevice(device: number): void {
    const context = this.#primaryContext(device);
    this.checked("cuCtxSetCurrent", this.#call.cuCtxSetCurrent(context));
  }

  override enablePeerAccess(peer: number): void {
    const code = this.#call.cuCtxEnablePeerAccess(this.#primaryContext(peer), 0);
    if (code !== errorCodes.CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED) {
      this.checked("cuCtxEnablePeerAccess", code);
    }
  }

  /** Retained for the life of the process. */
  #primaryContext(ordinal: number): bigint {
    const known = this.#contexts.get(ordinal);
    if (known !== undefined) return known;
    if (this.#call.cuInit(0) === errorCodes.CUDA_ERROR_NO_DEVICE) {
      throw this.failure("cuInit", errorCodes.CUDA_ERROR_NO_DEVICE);
    }
    const device = new Int32Array(1);
    this.checked("cuDeviceGet", this.#call.cuDeviceGet(device, ordinal));
    const code = this.#call.cuDevicePrimaryCtxRetain(this.#handle, device[0]);
    this.checked("cuDevicePrimaryCtxRetain", code);
    this.#contexts.set(ordinal, this.#handle[0]);
    return this.#handle[0];
  }

  override copy(destination: bigint, source: bigint, byteLength: number, stream: bigint): void {
    const code = this.#call.cuMemcpyAsync(destination, source, bytes(byteLength), stream);
    this.checked("cuMemcpyAsync", code);
  }

  override memset(address: bigint, byte: number, byteLength: number, stream: bigint): void {
    const code = this.#call.cuMemsetD8Async(address, byte, bytes(byteLength), stream);
    this.checked("cuMemsetD8Async", code);
  }

  protected override identity(device: number): DeviceIdentity {
    return this.#identities.of(device);
  }

  protected override describe(code: number): { codeName: string; text: string } {
    return describeDriverError(this.#call, code);
  }
}

function batchOf(call: Symbols): BatchCall | null {
  const { cuMemcpyBatchAsync_v2: batch, cuMemcpyBatchAsync: oldBatch } = call;
  if (batch !== null) {
    return (destinations, sources, sizes, count, attributes, indices, stream) =>
      batch(destinations, sources, sizes, count, attributes, indices, 1n, stream);
  }
  if (oldBatch === null) return null;
  const failed = new BigUint64Array(1);
  return (destinations, sources, sizes, count, attributes, indices, stream) =>
    oldBatch(destinations, sources, sizes, count, attributes, indices, 1n, failed, stream);
}
