/** Whether the kernel of this host has an NVIDIA device, seen without any library. */
import { existsSync } from "node:fs";

/** The device's file, and that of the driver's kernel module. */
const files = ["/dev/nvidia0", "/proc/driver/nvidia/version"];

/**
 * A file by which this host shows that it has an NVIDIA device; null without one.
 * @param exists for tests
 */
export function nvidiaFile(exists: (path: string) => boolean = existsSync): string | null {
  return files.find((file) => exists(file)) ?? null;
}

/** What `serve` says on a host whose NVIDIA device it does not find; null where there is none. */
export function unusedDeviceNotice(exists?: (path: string) => boolean): string | null {
  const file = nvidiaFile(exists);
  if (file === null) return null;
  return `this host has an NVIDIA device (${file}), which this process cannot see (/dev/nvidia*, ` +
    "CUDA_VISIBLE_DEVICES): serving on the CPU. `llumnix doctor` shows what CUDA finds.";
}
