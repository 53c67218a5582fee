/** Which device an instance uses: each device has one instance, unless they may share it. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { UsageError } from "../../core/errors.ts";

/** A device that no other instance of this user takes until the lease is released, or the process ends. */
export interface DeviceLease {
  readonly ordinal: number;
  /** Instances that share the device: each gets this part of its memory. */
  readonly sharedBy: number;
  release(): void;
}

export interface LeaseOptions {
  /** Instances that will run on this host. */
  readonly numInstances: number;
  /** `--allow-shared-device` */
  readonly allowShared: boolean;
  /** Where the locks are. Default: `$XDG_RUNTIME_DIR`, or the directory for temporary files. */
  readonly directory?: string;
  /** How long to wait for an instance that is ending. Default: 10 s. */
  readonly patienceMs?: number;
}

/** How often a taken device is tried again. */
const RETRY_MS = 200;

/**
 * Takes a free device, the first of those that the driver shows this process (CUDA_VISIBLE_DEVICES). A lease is
 * the lock of a file that is named after the device's UUID: the system releases it when the process
 * ends, however it ends.
 * @throws {UsageError} fewer devices than instances, or all are in use
 */
export async function leaseDevice(cuda: Cuda, options: LeaseOptions): Promise<DeviceLease> {
  const { numInstances, allowShared, patienceMs = 10_000 } = options;
  const count = cuda.deviceCount();
  if (numInstances > count && !allowShared) {
    throw new UsageError(
      `--device cuda: ${numInstances} instances need a device each, and the driver shows ${count}. ` +
        "Start fewer instances, let this host show more devices (CUDA_VISIBLE_DEVICES), or let " +
        "instances share a device and its memory: --allow-shared-device.",
    );
  }
  const sharedBy = Math.max(1, Math.ceil(numInstances / count));
  const devices = Array.from({ length: count }, (_, ordinal) => cuda.deviceInfo(ordinal));
  const directory = options.directory ?? lockDirectory();
  const deadline = performance.now() + patienceMs;
  for (;;) {
    for (let share = 0; share < sharedBy; share++) {
      for (const { ordinal, uuid, pciBusId } of devices) {
        const name = `llumnix-device-${uuid || pciBusId.replaceAll(/[:.]/g, "-")}-${share}.lock`;
        const release = await tryLock(`${directory}/${name}`);
        if (release !== null) return { ordinal, sharedBy, release };
      }
    }
    if (performance.now() >= deadline) {
      throw new UsageError(
        `--device cuda: other instances use ${
          count === 1 ? "the device" : `all ${count} devices`
        } that the ` +
          `driver shows (locks in ${directory}). Stop one of them, or let this host show more ` +
          "devices (CUDA_VISIBLE_DEVICES).",
      );
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function lockDirectory(): string {
  const runtime = Deno.env.get("XDG_RUNTIME_DIR") || Deno.env.get("TMPDIR") || "/tmp";
  return runtime.replace(/\/$/, "");
}

/** Locks a file, which stays; null if another process has it, or another user owns it. */
async function tryLock(path: string): Promise<(() => void) | null> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) return null;
    throw new UsageError(
      `--device cuda: cannot lock a device: ${
        (error as Error).message
      }. Set XDG_RUNTIME_DIR to a ` +
        "directory that this user can write to.",
      { cause: error },
    );
  }
  if (await file.tryLock(true)) return () => file.close();
  file.close();
  return null;
}
