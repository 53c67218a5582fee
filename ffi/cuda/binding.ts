/**
 * The part of `Cuda` that libcudart and libcuda have alike: the same functions under other names, with
 * the same arguments, flags and error codes. What differs is in `cudart.ts` and `driver.ts`.
 */
import type { Library } from "../library.ts";
import { textAt } from "../memory.ts";
import { type CommonSymbols, cudaConstants, type FunctionNames } from "./common_symbols.ts";
import { encodeCopyAttributes } from "./copy_attributes.ts";
import {
  type Cuda,
  type CudaLibrary,
  type DeviceInfo,
  type EventOptions,
  ipcHandleBytes,
  type MemoryInfo,
  type StreamOptions,
} from "./cuda.ts";
import { type CudaError, errorCodes, errorOf, OutOfMemoryError } from "./errors.ts";

const cu = cudaConstants;
const { CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NOT_READY } = errorCodes;

/** Names and memory of a device, which only libcuda tells without structs that change their size. */
export type DeviceIdentity = Pick<DeviceInfo, "name" | "uuid" | "totalBytes">;

/** One call of a batch; null where the library has none. */
export type BatchCall = (
  destinations: BigUint64Array<ArrayBuffer>,
  sources: BigUint64Array<ArrayBuffer>,
  byteLengths: BigUint64Array<ArrayBuffer>,
  count: bigint,
  attributes: Uint8Array<ArrayBuffer>,
  indices: BigUint64Array<ArrayBuffer>,
  stream: bigint,
) => number;

export abstract class CudaBinding implements Cuda {
  abstract readonly library: CudaLibrary;
  abstract setDevice(device: number): void;
  abstract enablePeerAccess(peer: number): void;
  abstract copy(destination: bigint, source: bigint, byteLength: number, stream: bigint): void;
  abstract memset(address: bigint, byte: number, byteLength: number, stream: bigint): void;

  /** The library's name and text of an error code. */
  protected abstract describe(code: number): { readonly codeName: string; readonly text: string };
  protected abstract identity(device: number): DeviceIdentity;

  readonly #call: Library<CommonSymbols>["symbols"];
  readonly #names: FunctionNames;
  #batch: BatchCall | null;
  readonly #copyAttributes = encodeCopyAttributes();
  readonly #firstCopy = new BigUint64Array(1);
  readonly #wide = new BigUint64Array(1);
  readonly #otherWide = new BigUint64Array(1);
  readonly #word = new Int32Array(1);
  readonly #otherWord = new Int32Array(1);
  readonly #float = new Float32Array(1);

  constructor(
    symbols: Library<CommonSymbols>["symbols"],
    names: FunctionNames,
    batch: BatchCall | null,
  ) {
    this.#call = symbols;
    this.#names = names;
    this.#batch = batch;
  }

  /** False once the library or the driver has refused a batched copy. */
  get batchedCopies(): boolean {
    return this.#batch !== null;
  }

  driverVersion(): number {
    this.#check("driverVersion", this.#call.driverVersion(this.#word));
    return this.#word[0];
  }

  deviceCount(): number {
    const code = this.#call.deviceCount(this.#word);
    if (code === errorCodes.CUDA_ERROR_NO_DEVICE) return 0;
    this.#check("deviceCount", code);
    return this.#word[0];
  }

  deviceInfo(device: number): DeviceInfo {
    const attribute = (id: number) => this.#attribute(device, id);
    return {
      ordinal: device,
      ...this.identity(device),
      pciBusId: this.#pciBusId(device),
      computeCapability: [
        attribute(cu.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        attribute(cu.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
      ],
      multiprocessors: attribute(cu.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
      sharedMemoryPerBlockBytes: attribute(
        cu.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
      ),
      l2CacheBytes: attribute(cu.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
      copyEngines: attribute(cu.CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT),
      gpuDirectRdma: attribute(cu.CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED) !== 0,
      ipcEvents: attribute(cu.CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED) !== 0,
    };
  }

  #attribute(device: number, id: number): number {
    this.#check("deviceAttribute", this.#call.deviceAttribute(this.#word, id, device));
    return this.#word[0];
  }

  #pciBusId(device: number): string {
    const text = new Uint8Array(32);
    this.#check("devicePciBusId", this.#call.devicePciBusId(text, text.length, device));
    return textAt(Deno.UnsafePointer.of(text)).toLowerCase();
  }

  canAccessPeer(device: number, peer: number): boolean {
    this.#check("canAccessPeer", this.#call.canAccessPeer(this.#word, device, peer));
    return this.#word[0] !== 0;
  }

  memGetInfo(): MemoryInfo {
    this.#check("memGetInfo", this.#call.memGetInfo(this.#wide, this.#otherWide));
    return { freeBytes: Number(this.#wide[0]), totalBytes: Number(this.#otherWide[0]) };
  }

  checkDevice(): void {
    this.queryStream(0n);
  }

  malloc(byteLength: number): bigint {
    const code = this.#call.malloc(this.#wide, someBytes(byteLength));
    if (code === CUDA_ERROR_OUT_OF_MEMORY) throw this.#outOfMemory("malloc", byteLength);
    this.#check("malloc", code);
    return this.#wide[0];
  }

  free(address: bigint): void {
    this.#check("free", this.#call.free(address));
  }

  hostAlloc(byteLength: number): bigint {
    const flags = cu.CU_MEMHOSTALLOC_PORTABLE | cu.CU_MEMHOSTALLOC_DEVICEMAP;
    const code = this.#call.hostAlloc(this.#wide, someBytes(byteLength), flags);
    if (code === CUDA_ERROR_OUT_OF_MEMORY) throw this.#outOfMemory("hostAlloc", byteLength);
    this.#check("hostAlloc", code);
    return this.#wide[0];
  }

  hostFree(address: bigint): void {
    this.#check("hostFree", this.#call.hostFree(address));
  }

  hostRegister(address: bigint, byteLength: number): void {
    const flags = cu.CU_MEMHOSTREGISTER_PORTABLE | cu.CU_MEMHOSTREGISTER_DEVICEMAP;
    const code = this.#call.hostRegister(address, someBytes(byteLength), flags);
    if (code === CUDA_ERROR_OUT_OF_MEMORY) throw this.#outOfMemory("hostRegister", byteLength);
    this.#check("hostRegister", code);
  }

  hostUnregister(address: bigint): void {
    this.#check("hostUnregister", this.#call.hostUnregister(address));
  }

  hostDevicePointer(address: bigint): bigint {
    this.#check("hostDevicePointer", this.#call.hostDevicePointer(this.#wide, address, 0));
    return this.#wide[0];
  }

  priorityRange(): { readonly least: number; readonly greatest: number } {
    this.#check("priorityRange", this.#call.priorityRange(this.#word, this.#otherWord));
    return { least: this.#word[0], greatest: this.#otherWord[0] };
  }

  createStream({ priority = 0 }: StreamOptions = {}): bigint {
    const code = this.#call.streamCreate(this.#wide, cu.CU_STREAM_NON_BLOCKING, priority);
    this.#check("streamCreate", code);
    return this.#wide[0];
  }

  destroyStream(stream: bigint): void {
    this.#check("streamDestroy", this.#call.streamDestroy(stream));
  }

  queryStream(stream: bigint): boolean {
    return this.#ready("streamQuery", this.#call.streamQuery(stream));
  }

  synchronizeStream(stream: bigint): void {
    this.#check("streamSynchronize", this.#call.streamSynchronize(stream));
  }

  waitEvent(stream: bigint, event: bigint): void {
    this.#check("streamWaitEvent", this.#call.streamWaitEvent(stream, event, 0));
  }

  createEvent(options: EventOptions = {}): bigint {
    const { timing = false, interprocess = false, blockingSync = false } = options;
    if (timing && interprocess) {
      throw new RangeError(
        "an event for other processes records no time: leave out one of the two",
      );
    }
    const flags = (timing ? 0 : cu.CU_EVENT_DISABLE_TIMING) |
      (interprocess ? cu.CU_EVENT_INTERPROCESS : 0) |
      (blockingSync ? cu.CU_EVENT_BLOCKING_SYNC : 0);
    this.#check("eventCreate", this.#call.eventCreate(this.#wide, flags));
    return this.#wide[0];
  }

  destroyEvent(event: bigint): void {
    this.#check("eventDestroy", this.#call.eventDestroy(event));
  }

  recordEvent(event: bigint, stream: bigint): void {
    this.#check("eventRecord", this.#call.eventRecord(event, stream));
  }

  queryEvent(event: bigint): boolean {
    return this.#ready("eventQuery", this.#call.eventQuery(event));
  }

  synchronizeEvent(event: bigint): void {
    this.#check("eventSynchronize", this.#call.eventSynchronize(event));
  }

  elapsedMs(start: bigint, end: bigint): number {
    this.#check("eventElapsed", this.#call.eventElapsed(this.#float, start, end));
    return this.#float[0];
  }

  copyBatch(
    destinations: BigUint64Array<ArrayBuffer>,
    sources: BigUint64Array<ArrayBuffer>,
    byteLengths: BigUint64Array<ArrayBuffer>,
    count: number,
    stream: bigint,
  ): void {
    const room = Math.min(destinations.length, sources.length, byteLengths.length);
    if (!Number.isInteger(count) || count < 0 || count > room) {
      throw new RangeError(`copyBatch: ${count} copies, but the arrays have room for ${room}`);
    }
    if (count === 0) return;
    // The library refuses batches on the default stream.
    if (this.#batch !== null && count > 1 && stream !== 0n) {
      const code = this.#batch(
        destinations,
        sources,
        byteLengths,
        BigInt(count),
        this.#copyAttributes,
        this.#firstCopy,
        stream,
      );
      const { CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER, CUDA_ERROR_NOT_SUPPORTED } = errorCodes;
      if (code !== CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER && code !== CUDA_ERROR_NOT_SUPPORTED) {
        this.checked("copyBatch", code);
        return;
      }
      // Nothing was copied: the driver is older than the library, now and later.
      this.#batch = null;
    }
    for (let i = 0; i < count; i++) {
      this.copy(destinations[i], sources[i], Number(byteLengths[i]), stream);
    }
  }

  ipcMemHandle(address: bigint): Uint8Array<ArrayBuffer> {
    const handle = new Uint8Array(ipcHandleBytes);
    this.#check("ipcGetMem", this.#call.ipcGetMem(handle, address));
    return handle;
  }

  openIpcMemHandle(handle: Uint8Array<ArrayBuffer>): bigint {
    checkHandle(handle);
    const code = this.#call.ipcOpenMem(this.#wide, handle, cu.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    this.#check("ipcOpenMem", code);
    return this.#wide[0];
  }

  closeIpcMemHandle(address: bigint): void {
    this.#check("ipcCloseMem", this.#call.ipcCloseMem(address));
  }

  ipcEventHandle(event: bigint): Uint8Array<ArrayBuffer> {
    const handle = new Uint8Array(ipcHandleBytes);
    this.#check("ipcGetEvent", this.#call.ipcGetEvent(handle, event));
    return handle;
  }

  openIpcEventHandle(handle: Uint8Array<ArrayBuffer>): bigint {
    checkHandle(handle);
    this.#check("ipcOpenEvent", this.#call.ipcOpenEvent(this.#wide, handle));
    return this.#wide[0];
  }

  /** @throws {CudaError} of the right class unless `code` is success */
  protected checked(call: string, code: number): void {
    if (code !== CUDA_SUCCESS) throw this.failure(call, code);
  }

  /** The error of a failed call. */
  protected failure(call: string, code: number): Error {
    return errorOf({ call, code, ...this.describe(code) });
  }

  #check(name: keyof FunctionNames, code: number): void {
    if (code !== CUDA_SUCCESS) throw this.failure(this.#names[name], code);
  }

  #ready(name: keyof FunctionNames, code: number): boolean {
    if (code === CUDA_ERROR_NOT_READY) return false;
    this.#check(name, code);
    return true;
  }

  #outOfMemory(name: "malloc" | "hostAlloc" | "hostRegister", byteLength: number): CudaError {
    const failure = {
      call: this.#names[name],
      code: CUDA_ERROR_OUT_OF_MEMORY,
      ...this.describe(CUDA_ERROR_OUT_OF_MEMORY),
    };
    if (name !== "malloc") {
      const { available, total } = Deno.systemMemoryInfo();
      return new OutOfMemoryError(failure, "pinned host", byteLength, available, total);
    }
    try {
      const { freeBytes, totalBytes } = this.memGetInfo();
      return new OutOfMemoryError(failure, "device", byteLength, freeBytes, totalBytes);
    } catch {
      return new OutOfMemoryError(failure, "device", byteLength, null, null);
    }
  }
}

/** A byte count as C takes it. */
export function bytes(byteLength: number): bigint {
  if (!Number.isSafeInteger(byteLength) || byteLength < 0) {
    throw new RangeError(`${byteLength} is not a count of bytes`);
  }
  return BigInt(byteLength);
}

/** The libraries disagree on allocations of nothing: neither is asked for one. */
function someBytes(byteLength: number): bigint {
  if (byteLength === 0) throw new RangeError("an allocation has at least one byte");
  return bytes(byteLength);
}

function checkHandle(handle: Uint8Array): void {
  if (handle.length !== ipcHandleBytes) {
    throw new RangeError(`an IPC handle has ${ipcHandleBytes} bytes, not ${handle.length}`);
  }
}
