/** Failures of CUDA, a class for each that a caller can act on. */

/** What a failed call says of itself. */
export interface Failure {
  /** The function of the library: "cudaMalloc". */
  readonly call: string;
  /** `cudaError_t` or `CUresult`: the numbers are the same. */
  readonly code: number;
  /** The library's name of the code: "cudaErrorMemoryAllocation". */
  readonly codeName: string;
  /** The library's text of the code: "out of memory". */
  readonly text: string;
}

/** A failed call of libcudart or libcuda. */
export class CudaError extends Error implements Failure {
  override readonly name: string = "CudaError";
  readonly call: string;
  readonly code: number;
  readonly codeName: string;
  readonly text: string;

  constructor(failure: Failure, advice = "") {
    const { call, code, codeName, text } = failure;
    super(`${call}: ${text} (${codeName}, ${code})${advice === "" ? "" : `. ${advice}`}`);
    this.call = call;
    this.code = code;
    this.codeName = codeName;
    this.text = text;
  }
}

/** An allocation found too little memory. Nothing else has happened. */
export class OutOfMemoryError extends CudaError {
  override readonly name = "OutOfMemoryError";
  constructor(
    failure: Failure,
    /** Where: on the device, or in the host's memory that the device can reach. */
    readonly kind: "device" | "pinned host",
    readonly neededBytes: number,
    /** Free of `totalBytes`, seen after the failure; null where that is not known. */
    readonly freeBytes: number | null,
    readonly totalBytes: number | null,
  ) {
    const free = freeBytes === null ? "" : `, ${bytesText(freeBytes)} are free`;
    const total = totalBytes === null ? "" : ` of ${bytesText(totalBytes)}`;
    super(failure, `${bytesText(neededBytes)} of ${kind} memory are needed${free}${total}`);
  }
}

/** The host has no NVIDIA driver. No `CudaError`: without one there may be no library that failed. */
export class NoDriverError extends Error {
  override readonly name = "NoDriverError";
  constructor(
    /** What was seen: a library's error, or the places that were searched. */
    readonly reason: string,
  ) {
    super(
      "This host has no NVIDIA driver (libcuda.so.1): install one, or use the CPU. Seen: " + reason,
    );
  }
}

/** The driver does not know the library's version of CUDA. */
export class DriverTooOldError extends CudaError {
  override readonly name = "DriverTooOldError";
  constructor(
    failure: Failure,
    /** Newest version of CUDA that the driver knows, as CUDA codes it: 12040 is 12.4. */
    readonly driverVersion: number,
    /** Version of the library. */
    readonly libraryVersion: number,
  ) {
    super(
      failure,
      `The driver knows CUDA ${versionText(driverVersion)}, the library is of ` +
        `CUDA ${versionText(libraryVersion)}: install a newer driver, or the library of ` +
        `CUDA ${Math.floor(driverVersion / 1000)}`,
    );
  }
}

/** The driver is there and finds no device, or none is visible (CUDA_VISIBLE_DEVICES). */
export class NoDeviceError extends CudaError {
  override readonly name = "NoDeviceError";
  constructor(failure: Failure) {
    super(
      failure,
      "The driver shows no device: see `nvidia-smi -L` and the environment variable " +
        "CUDA_VISIBLE_DEVICES",
    );
  }
}

/** Another process has the device for itself, or its compute mode forbids this one. */
export class DeviceBusyError extends CudaError {
  override readonly name = "DeviceBusyError";
  constructor(failure: Failure) {
    super(
      failure,
      "Another process has the device for itself: end it, or set the compute mode to Default " +
        "(`nvidia-smi -c 0`)",
    );
  }
}

/**
 * The device's context is dead, and so is all of its memory for this process: every later call fails
 * likewise. Only a new process can use the device again.
 */
export class DeviceLostError extends CudaError {
  override readonly name = "DeviceLostError";
  constructor(failure: Failure) {
    super(failure, "The device's context is dead for this process: end it and start another");
  }
}

/** Codes of cuda.h, which driver_types.h of the runtime repeats under other names. */
export const errorCodes = {
  CUDA_SUCCESS: 0,
  CUDA_ERROR_OUT_OF_MEMORY: 2,
  CUDA_ERROR_STUB_LIBRARY: 34,
  CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER: 36,
  CUDA_ERROR_DEVICE_UNAVAILABLE: 46,
  CUDA_ERROR_NO_DEVICE: 100,
  CUDA_ERROR_INVALID_CONTEXT: 201,
  CUDA_ERROR_NO_BINARY_FOR_GPU: 209,
  CUDA_ERROR_UNSUPPORTED_PTX_VERSION: 222,
  CUDA_ERROR_NOT_READY: 600,
  CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED: 704,
  CUDA_ERROR_NOT_SUPPORTED: 801,
  CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: 803,
} as const;

/** `cudaErrorInsufficientDriver`, of libcudart only. */
export const driverInsufficient = 35;

/**
 * Codes after which a context is dead: cuda.h says of each that the process must be terminated, or
 * that the device itself has failed.
 */
export const deadContextCodes = {
  CUDA_ERROR_ECC_UNCORRECTABLE: 214,
  CUDA_ERROR_NVLINK_UNCORRECTABLE: 220,
  CUDA_ERROR_CONTAINED: 226,
  CUDA_ERROR_ILLEGAL_ADDRESS: 700,
  CUDA_ERROR_LAUNCH_TIMEOUT: 702,
  CUDA_ERROR_CONTEXT_IS_DESTROYED: 709,
  CUDA_ERROR_ASSERT: 710,
  CUDA_ERROR_HARDWARE_STACK_ERROR: 714,
  CUDA_ERROR_ILLEGAL_INSTRUCTION: 715,
  CUDA_ERROR_MISALIGNED_ADDRESS: 716,
  CUDA_ERROR_INVALID_ADDRESS_SPACE: 717,
  CUDA_ERROR_INVALID_PC: 718,
  CUDA_ERROR_LAUNCH_FAILED: 719,
  CUDA_ERROR_TENSOR_MEMORY_LEAK: 721,
} as const;

const deadContext: ReadonlySet<number> = new Set(Object.values(deadContextCodes));

const adviceOf: Readonly<Record<number, string>> = {
  [errorCodes.CUDA_ERROR_STUB_LIBRARY]:
    "This libcuda is the stub of the CUDA toolkit: take the driver's own directory first",
  [errorCodes.CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER]: "The driver is too old for this call",
  [errorCodes.CUDA_ERROR_INVALID_CONTEXT]: "Call setDevice on this thread first",
  [errorCodes.CUDA_ERROR_NO_BINARY_FOR_GPU]: "The kernels were not built for this device",
  [errorCodes.CUDA_ERROR_UNSUPPORTED_PTX_VERSION]: "The driver is too old for these kernels",
  [errorCodes.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH]:
    "The driver's library and its kernel module are of different versions: restart the host",
};

/** The error class of a failure; out of memory and driver too old are made where they arise. */
export function errorOf(failure: Failure): CudaError {
  const { code, call } = failure;
  if (code === errorCodes.CUDA_ERROR_NO_DEVICE) return new NoDeviceError(failure);
  if (code === errorCodes.CUDA_ERROR_DEVICE_UNAVAILABLE) return new DeviceBusyError(failure);
  if (deadContext.has(code)) return new DeviceLostError(failure);
  const ownHandle = code === errorCodes.CUDA_ERROR_INVALID_CONTEXT && call.includes("IpcOpen");
  if (ownHandle) {
    return new CudaError(failure, "A process cannot open a handle that it exported itself");
  }
  return new CudaError(failure, adviceOf[code]);
}

/** 12040 as "12.4". */
export function versionText(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

function bytesText(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0, value = bytes;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(2)} ${units[unit]}`;
}
