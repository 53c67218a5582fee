/** Which device an instance uses: each device has one instance, unless they may share it. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { claimName } from "../../../ffi/host_claim.ts";
import { UsageError } from "../../core/errors.ts";

/** A device that no other instance on this host takes until the lease is released, or the process ends. */
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
  /** How long to wait for an instance that is ending. Default: 10 s. */
  readonly patienceMs?: number;
}

/** How often a taken device is tried again. */
const RETRY_MS = 200;

/**
 * Takes a free device, the first of those that the driver shows this process (CUDA_VISIBLE_DEVICES). A
 * device is claimed by its UUID; one that is shared has as many names as instances.
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
  const deadline = performance.now() + patienceMs;
  for (;;) {
    for (let share = 0; share < sharedBy; share++) {
      for (const { ordinal, uuid, pciBusId } of devices) {
        const suffix = share === 0 ? "" : `-${share}`;
        const claim = claimName(`llumnix-device-${uuid || pciBusId}${suffix}`);
        if (claim !== null) return { ordinal, sharedBy, release: () => claim.release() };
      }
    }
    if (performance.now() >= deadline) {
      throw new UsageError(
        `--device cuda: other instances use ${
          count === 1 ? "the device" : `all ${count} devices`
        } that the driver shows. Stop one of them, or let this host show more devices ` +
          "(CUDA_VISIBLE_DEVICES).",
      );
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
