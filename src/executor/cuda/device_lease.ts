/** Which devices an instance uses: each device has one instance, unless they may share it. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { claimName, heldNames } from "../../../ffi/host_claim.ts";
import { UsageError } from "../../core/errors.ts";

/** Devices that no other instance on this host takes until the lease is released, or the process ends. */
export interface DeviceLease {
  /** As many as the instance asked for, each once. */
  readonly ordinals: readonly number[];
  /** Instances that share each device: each gets this part of its memory. */
  readonly sharedBy: number;
  release(): void;
}

export interface LeaseOptions {
  /** Instances that will run on this host. */
  readonly numInstances: number;
  /** Devices of an instance: `--tensor-parallel-size`. */
  readonly devicesEach: number;
  /** `--allow-shared-device` */
  readonly allowShared: boolean;
  /** How long to wait for an instance that is ending. Default: 10 s. */
  readonly patienceMs?: number;
}

/** How often a taken device is tried again, at least. */
const RETRY_MS = 200;

/**
 * Takes free devices, the first of those that the driver shows this process (CUDA_VISIBLE_DEVICES), and several
 * next to each other if it can. A device is claimed by its UUID; one that is shared has as many names as
 * instances. All instances of a device must share it by the same number, for each takes that part of its memory.
 * @throws {UsageError} too few devices for the instances, or all are in use
 */
export async function leaseDevices(cuda: Cuda, options: LeaseOptions): Promise<DeviceLease> {
  const { numInstances, devicesEach, patienceMs = 10_000 } = options;
  const count = cuda.deviceCount();
  refuseTooFew(options, count);
  const sharedBy = Math.max(1, Math.ceil(numInstances * devicesEach / count));
  const names = Array.from({ length: count }, (_, ordinal) => {
    const { uuid, pciBusId } = cuda.deviceInfo(ordinal);
    return new DeviceName(uuid || pciBusId);
  });
  const places = Array.from({ length: count * sharedBy }, (_, i) => ({
    ...{ ordinal: i % count, share: Math.floor(i / count), name: names[i % count] },
  }));
  // Each instance has a group of its own, so that two that start at once do not take each other's devices.
  const groups = Array.from(
    { length: Math.floor(places.length / devicesEach) },
    (_, i) => places.slice(i * devicesEach, (i + 1) * devicesEach),
  );
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const conflicts = new Map<number, string>(); // by device
    for (const group of [...groups, places]) {
      const taken = claimSome(group, devicesEach, sharedBy, conflicts);
      if (taken !== null) return { ...taken, sharedBy };
    }
    if (performance.now() >= deadline) {
      throw conflicts.size > 0 ? disagreement([...conflicts.values()], sharedBy) : allInUse(count);
    }
    // Two that see each other's claim do not try again at the same time.
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS * (1 + Math.random())));
  }
}

/** One of the shares of a device. */
interface Place {
  readonly ordinal: number;
  readonly share: number;
  readonly name: DeviceName;
}

/**
 * Claims `count` devices at some of the places, each once; null if there are not so many: then none is claimed.
 * @param conflicts gets what other processes have that share a device by another number
 */
function claimSome(
  places: readonly Place[],
  count: number,
  sharedBy: number,
  conflicts: Map<number, string>,
): Pick<DeviceLease, "ordinals" | "release"> | null {
  const taken = new Map<number, { release(): void }>(); // by device
  const release = () => taken.forEach((claim) => claim.release());
  for (const [i, { ordinal, share, name }] of places.entries()) {
    if (taken.size + places.length - i < count) break; // no claim that others would see for nothing
    const claim = taken.has(ordinal) ? null : claimName(name.share(share, sharedBy));
    if (claim === null) continue;
    // After the claim, so that of two processes at once at least one sees the other.
    const conflict = name.conflict(sharedBy);
    if (conflict === null) {
      taken.set(ordinal, claim);
      if (taken.size === count) return { ordinals: [...taken.keys()], release };
    } else {
      claim.release();
      conflicts.set(ordinal, `device ${ordinal}: ${conflict}`);
    }
  }
  release();
  return null;
}

/** NCCL takes one rank a device, so no option lets an instance use a device twice. */
function refuseTooFew({ numInstances, devicesEach, allowShared }: LeaseOptions, count: number) {
  if (devicesEach > count) {
    throw new UsageError(
      `--tensor-parallel-size ${devicesEach}: each rank needs a device of its own, and the driver shows ` +
        `${count}. Lower it, or let this host show more devices (CUDA_VISIBLE_DEVICES).`,
    );
  }
  if (numInstances * devicesEach <= count || allowShared) return;
  const each = devicesEach === 1 ? "a device" : `${devicesEach} devices`;
  throw new UsageError(
    `--device cuda: ${numInstances} instances need ${each} each, and the driver shows ${count}. ` +
      "Start fewer instances, let this host show more devices (CUDA_VISIBLE_DEVICES), or let " +
      "instances share a device and its memory: --allow-shared-device.",
  );
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
