/**
 * What transfers of KV blocks need of CUDA: memory, streams, events, copies, IPC. libcudart and
 * libcuda both have it; `openCuda` chooses.
 *
 * Addresses, streams and events are bigint handles of the library. A device is current per thread:
 * every worker calls `setDevice` before anything else. The errors are in `errors.ts`.
 */

/** The library behind a `Cuda`. */
export interface CudaLibrary {
  readonly api: "runtime" | "driver";
  /** "libcudart" or "libcuda". */
  readonly name: string;
  readonly path: string;
  /** True if this is the project's software device: nothing that it does says anything of a GPU. */
  readonly softwareDevice: boolean;
  /** Version of CUDA as CUDA codes it: 13000 is 13.0. */
  readonly version: number;
}

/** A device, as `doctor` and the choice of backends need it. */
export interface DeviceInfo {
  readonly ordinal: number;
  readonly name: string;
  /** "GPU-2b3c…", the same in every process; "" where libcuda does not tell. */
  readonly uuid: string;
  /** "0000:3b:00.0". */
  readonly pciBusId: string;
  readonly totalBytes: number;
  /** [9, 0] for sm_90. */
  readonly computeCapability: readonly [major: number, minor: number];
  readonly multiprocessors: number;
  /** The most dynamic shared memory that a kernel can ask for. */
  readonly sharedMemoryPerBlockBytes: number;
  readonly l2CacheBytes: number;
  /** Copies that run beside kernels at once. */
  readonly copyEngines: number;
  readonly gpuDirectRdma: boolean;
  readonly ipcEvents: boolean;
}

export interface MemoryInfo {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

export interface StreamOptions {
  /** Lower numbers run first: from `priorityRange().greatest` to `.least`. Default: least. */
  readonly priority?: number;
}

export interface EventOptions {
  /** Records the time, for `elapsedMs`. Not with `interprocess`. */
  readonly timing?: boolean;
  /** Can be opened by another process. */
  readonly interprocess?: boolean;
  /** `synchronizeEvent` sleeps instead of spinning: 20 us later, and a core free meanwhile. */
  readonly blockingSync?: boolean;
}

/** Bytes of a handle that names memory or an event to another process. */
export const ipcHandleBytes = 64;

export interface Cuda {
  readonly library: CudaLibrary;

  /** Newest version of CUDA that the driver knows, 0 without a driver. */
  driverVersion(): number;

  // Devices.

  /** 0 if the driver finds none. */
  deviceCount(): number;
  deviceInfo(device: number): DeviceInfo;
  /** Makes the device's primary context current on the calling thread. */
  setDevice(device: number): void;
  canAccessPeer(device: number, peer: number): boolean;
  /** Lets the current device read and write the memory of `peer`. May be called again. */
  enablePeerAccess(peer: number): void;
  /** Memory of the current device. */
  memGetInfo(): MemoryInfo;
  /** @throws {DeviceLostError} if the current device's context is dead. Not during a capture. */
  checkDevice(): void;

  // Memory.

  /** @throws {OutOfMemoryError} with needed and free bytes */
  malloc(byteLength: number): bigint;
  free(address: bigint): void;
  /** Pinned host memory, which every device of the process can reach by the same address. */
  hostAlloc(byteLength: number): bigint;
  hostFree(address: bigint): void;
  /** Pins host memory that is there already. */
  hostRegister(address: bigint, byteLength: number): void;
  hostUnregister(address: bigint): void;
  /** The address by which kernels reach pinned host memory. */
  hostDevicePointer(address: bigint): bigint;

  // Streams. They do not wait for the default stream.

  priorityRange(): { readonly least: number; readonly greatest: number };
  createStream(options?: StreamOptions): bigint;
  destroyStream(stream: bigint): void;
  /** True if all work of the stream is done. */
  queryStream(stream: bigint): boolean;
  /** Waits on this thread. */
  synchronizeStream(stream: bigint): void;
  /** Work that comes later on `stream` waits for the latest record of `event`. */
  waitEvent(stream: bigint, event: bigint): void;

  // Events.

  createEvent(options?: EventOptions): bigint;
  destroyEvent(event: bigint): void;
  recordEvent(event: bigint, stream: bigint): void;
  /** True if the work before the latest record is done, or if there was no record. */
  queryEvent(event: bigint): boolean;
  /** Waits on this thread. */
  synchronizeEvent(event: bigint): void;
  /** Between the latest records of two events with `timing`. */
  elapsedMs(start: bigint, end: bigint): number;

  // Copies, between any of: device memory, pinned memory, other host memory.

  /** The copy is done in the order of `stream`; both memories stay as they are until then. */
  copy(destination: bigint, source: bigint, byteLength: number, stream: bigint): void;
  /**
   * `count` copies in the order of `stream`, among themselves in any order: one call of the library
   * if it has batched copies, else one each. A source is read as late as the stream comes to it.
   */
  copyBatch(
    destinations: BigUint64Array<ArrayBuffer>,
    sources: BigUint64Array<ArrayBuffer>,
    byteLengths: BigUint64Array<ArrayBuffer>,
    count: number,
    stream: bigint,
  ): void;
  memset(address: bigint, byte: number, byteLength: number, stream: bigint): void;

  // Memory and events of other processes on the same host.

  /** [64] bytes that name the allocation of `malloc` that begins at `address`. */
  ipcMemHandle(address: bigint): Uint8Array<ArrayBuffer>;
  /** Maps another process's allocation. The process that exported it cannot open it. */
  openIpcMemHandle(handle: Uint8Array<ArrayBuffer>): bigint;
  closeIpcMemHandle(address: bigint): void;
  /** [64] bytes that name an event of `createEvent({ interprocess: true })`. */
  ipcEventHandle(event: bigint): Uint8Array<ArrayBuffer>;
  openIpcEventHandle(handle: Uint8Array<ArrayBuffer>): bigint;
}
