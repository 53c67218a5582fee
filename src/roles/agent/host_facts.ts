/** What an agent tells of its host. */
import { UsageError } from "../../core/errors.ts";
import { HostProcess } from "../../core/host_process.ts";
import type { HostResources } from "../../core/protocol/agents.ts";
import type { EngineOptions } from "../../core/options.ts";
import { devices, executorKind } from "../../executor/devices.ts";

const HOST_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/**
 * The name of this host in its cluster.
 * @param written `--host-name`; null: the system's
 * @throws {UsageError} it has other characters, or is too long
 */
export function hostName(written: string | null, ofSystem = Deno.hostname): string {
  const name = written ?? ofSystem();
  if (HOST_NAME.test(name)) return name;
  throw new UsageError(
    `--host-name ${JSON.stringify(name)}: expected up to 63 letters, digits, ".", "_" and "-", ` +
      "starting with a letter or a digit",
  );
}

/** Tells this machine from others, and a container or network namespace from others of its machine. */
export function machineId(): string {
  const start = HostProcess.startOf(Deno.pid);
  if (start === undefined) return crypto.randomUUID();
  // Without its last part, which is of the process alone.
  return `${start.slice(0, start.lastIndexOf(":"))}:${Deno.readLinkSync("/proc/self/ns/net")}`;
}

export function hostResources(): HostResources {
  return {
    cudaDevices: devices.reduce((sum, kind) => sum + (kind.countDevices?.() ?? 0), 0),
    cores: navigator.hardwareConcurrency,
    memoryBytes: Deno.systemMemoryInfo().total,
  };
}

/**
 * How many instances the host runs at once: as many as its devices suffice for, else one for all cores.
 * @param written `--host-slots`; null: as many as above, and at least `initialInstances`
 * @throws {UsageError} there are fewer devices, and they are not shared
 */
export function hostSlots(
  options: Pick<EngineOptions, "device" | "allowSharedDevice" | "tensorParallelSize">,
  written: number | null,
  initialInstances: number,
  numDevices = executorKind(options.device).countDevices?.() ?? 0,
): number {
  const { allowSharedDevice, tensorParallelSize: devicesEach } = options;
  const most = Math.floor(numDevices / devicesEach);
  const slots = written ?? Math.max(most, initialInstances, 1);
  if (numDevices === 0 || slots <= most || allowSharedDevice) return slots;
  const own = devicesEach === 1 ? "a device of its own" : `${devicesEach} devices of its own`;
  const wanted = written === null ? `--initial-instances ${slots}` : `--host-slots ${slots}`;
  throw new UsageError(
    `${wanted}: each instance needs ${own}, and this host shows ${numDevices}. Lower the ` +
      "number, or let instances share a device and its memory: --allow-shared-device",
  );
}
