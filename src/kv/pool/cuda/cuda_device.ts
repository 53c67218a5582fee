/** CUDA for an executor: the device, and its memory for the KV cache. */
import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import {
  DeviceBusyError,
  DriverTooOldError,
  NoDeviceError,
  NoDriverError,
  OutOfMemoryError,
} from "../../../../ffi/cuda/errors.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { claimName } from "../../../../ffi/host_claim.ts";
import { LibraryNotFoundError, type OpenOptions } from "../../../../ffi/library.ts";
import { UnavailableError, UsageError } from "../../../core/errors.ts";
import { blockBytes, type KvLayout } from "../../layout.ts";
import { shownSize } from "../../sizing.ts";

/** Errors that only the operator can end. */
const lasting = [
  LibraryNotFoundError,
  NoDriverError,
  DriverTooOldError,
  NoDeviceError,
  DeviceBusyError,
];

/** A device that this process uses. */
export interface OwnDevice {
  readonly cuda: Cuda;
  readonly ordinal: number;
  /** Whether another process of this program has the device too. */
  readonly isShared: boolean;
  /** Lets other processes take it. A process that ends, however it ends, releases its device. */
  release(): void;
}

/**
 * Opens CUDA and takes the first visible device that no other process of this program on this host has; if
 * every device is taken, shares the first. The device is current on this thread.
 * @param device as in `--device`, for people
 * @throws as {@linkcode openCudaDevice}
 */
export function openOwnDevice(device: string, options: OpenOptions = {}): OwnDevice {
  return opening(device, () => {
    const cuda = openCuda(options);
    const count = checkedCount(cuda, device, 0);
    for (let ordinal = 0; ordinal < count; ordinal++) {
      const { uuid, pciBusId } = cuda.deviceInfo(ordinal);
      const claim = claimName(`llumnix-device-${uuid || pciBusId}`);
      if (claim === null) continue;
      try {
        cuda.setDevice(ordinal);
      } catch (error) {
        claim.release();
        throw error;
      }
      return { cuda, ordinal, isShared: false, release: () => claim.release() };
    }
    cuda.setDevice(0);
    return { cuda, ordinal: 0, isShared: true, release() {} };
  });
}

/**
 * Opens CUDA, which shows a device at least. None is current yet: that takes memory of a device.
 * @param device as in `--device`, for people
 * @throws as {@linkcode openCudaDevice}
 */
export function openVisibleCuda(device: string, options: OpenOptions = {}): Cuda {
  return opening(device, () => {
    const cuda = openCuda(options);
    checkedCount(cuda, device, 0);
    return cuda;
  });
}

/** Makes a device current on this thread. @throws as {@linkcode openCudaDevice} */
export function makeCurrent(cuda: Cuda, device: string, ordinal: number): void {
  opening(device, () => cuda.setDevice(ordinal));
}

/**
 * Opens CUDA and makes a device current on this thread.
 * @param device as in `--device`, for people
 * @throws {UsageError} the host has no driver, too old a driver, no such device, or not for this process
 * @throws {UnavailableError} the device cannot be used now
 */
export function openCudaDevice(device: string, ordinal: number, options: OpenOptions = {}): Cuda {
  return opening(device, () => {
    const cuda = openCuda(options);
    checkedCount(cuda, device, ordinal);
    cuda.setDevice(ordinal);
    return cuda;
  });
}

/** How many devices the driver shows. @throws {UsageError} `ordinal` is none of them */
function checkedCount(cuda: Cuda, device: string, ordinal: number): number {
  const count = cuda.deviceCount();
  if (ordinal < count) return count;
  throw new UsageError(
    `--device ${device} needs an NVIDIA device: the driver shows ${count}, and device ` +
      `${ordinal} was expected. See \`nvidia-smi -L\` and CUDA_VISIBLE_DEVICES, or use ` +
      "--device cpu.",
  );
}

function opening<T>(device: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const message = `--device ${device}: ${(error as Error).message}`;
    if (lasting.some((kind) => error instanceof kind)) {
      throw new UsageError(message, { cause: error });
    }
    throw new UnavailableError(message, { cause: error });
  }
}

/**
 * Allocates the blocks of a KV cache on the current device: one allocation, so that another process can
 * open it by one IPC handle.
 * @throws {UsageError} the device has too little memory
 */
export function allocateBlocks(cuda: Cuda, layout: KvLayout, numBlocks: number): bigint {
  const bytes = numBlocks * blockBytes(layout);
  try {
    return cuda.malloc(bytes);
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    throw tooLarge(error, "KV cache", "--num-gpu-blocks-override", layout, numBlocks);
  }
}

/**
 * Allocates pinned host memory for blocks that are swapped out.
 * @throws {UsageError} the host cannot lock so much memory
 */
export function allocateSwapBlocks(cuda: Cuda, layout: KvLayout, numBlocks: number): bigint {
  if (numBlocks === 0) return 0n;
  try {
    return cuda.hostAlloc(numBlocks * blockBytes(layout));
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    throw tooLarge(error, "swap pool", "--swap-space", layout, numBlocks);
  }
}

function tooLarge(
  { kind, neededBytes, freeBytes }: OutOfMemoryError,
  what: string,
  argument: string,
  { blockSize }: KvLayout,
  numBlocks: number,
): UsageError {
  const free = freeBytes === null ? "less is free" : `${shownSize(freeBytes)} is free`;
  return new UsageError(
    `Cannot allocate the ${what}: ${numBlocks} blocks of ${blockSize} tokens need ` +
      `${shownSize(neededBytes)} of ${kind} memory, and ${free}. Lower ${argument}.`,
  );
}
