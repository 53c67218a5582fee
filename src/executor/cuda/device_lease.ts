/** Which device an instance uses: each device has one instance, unless they may share it. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { claimName, heldNames } from "../../../ffi/host_claim.ts";
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

/** How often a taken device is tried again, at least. */
const RETRY_MS = 200;

/**
 * Takes a free device, the first of those that the driver shows this process (CUDA_VISIBLE_DEVICES). A
 * device is claimed by its UUID; one that is shared has as many names as instances. All instances of a
 * device must share it by the same number, for each takes that part of its memory.
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
    const conflicts = new Map<number, string>(); // by device
    for (let share = 0; share < sharedBy; share++) {
      for (const { ordinal, uuid, pciBusId } of devices) {
        const device = new DeviceName(uuid || pciBusId);
        const claim = claimName(device.share(share, sharedBy));
        if (claim === null) continue;
        // After the claim, so that of two processes at once at least one sees the other.
        const conflict = device.conflict(sharedBy);
        if (conflict === null) return { ordinal, sharedBy, release: () => claim.release() };
        claim.release();
        conflicts.set(ordinal, `device ${ordinal}: ${conflict}`);
      }
    }
    if (performance.now() >= deadline) {
      throw conflicts.size > 0 ? disagreement([...conflicts.values()], sharedBy) : allInUse(count);
    }
    // Two that see each other's claim do not try again at the same time.
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS * (1 + Math.random())));
  }
}

/** The names of one device. */
class DeviceName {
  readonly #base: string;

  constructor(id: string) {
    this.#base = `llumnix-device-${id}`;
  }

  share(index: number, sharedBy: number): string {
    return sharedBy === 1 ? this.#base : `${this.#base}-${index}-of-${sharedBy}`;
  }

  /** The process that shares the device by another number, in words; null: there is none. */
  conflict(sharedBy: number): string | null {
    for (const { name, pid } of heldNames(this.#base)) {
      const suffix = /^(?:-\d+-of-(\d+))?$/.exec(name.slice(this.#base.length));
      if (suffix === null) continue; // of another device
      const its = Number(suffix[1] ?? 1);
      if (its === sharedBy) continue;
      const owner = pid === null ? "a process of another user" : `process ${pid}`;
      return its === 1
        ? `${owner} uses it alone`
        : `${owner} uses it as one of ${its} instances that share it`;
    }
    return null;
  }
}

function disagreement(conflicts: readonly string[], sharedBy: number): UsageError {
  const wanted = sharedBy === 1 ? "use it alone" : `share it among ${sharedBy} instances`;
  return new UsageError(
    `--device cuda: process ${Deno.pid} would ${wanted}, but on ${conflicts.join("; on ")}. All ` +
      "instances of a device must share it by the same number. Stop the other one, give both " +
      "services the same number of instances per device, or let them see different devices " +
      "(CUDA_VISIBLE_DEVICES).",
  );
}

function allInUse(count: number): UsageError {
  const devices = count === 1 ? "the device" : `all ${count} devices`;
  return new UsageError(
    `--device cuda: other instances use ${devices} that the driver shows. Stop one of them, or let ` +
      "this host show more devices (CUDA_VISIBLE_DEVICES).",
  );
}
