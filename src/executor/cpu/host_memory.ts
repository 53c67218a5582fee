/**
 * Memory that a new allocation can have without swapping, in bytes: what the system has available,
 * and within the control group's limit where there is one (cgroup v2, memory.max).
 */
export function availableMemoryBytes(): number {
  const { available } = Deno.systemMemoryInfo();
  const limit = readNumber("/sys/fs/cgroup/memory.max");
  const used = readNumber("/sys/fs/cgroup/memory.current");
  if (limit === null || used === null) return available;
  return Math.max(0, Math.min(available, limit - used));
}

/** Content of a control file; null where there is none, and for "max". */
function readNumber(path: string): number | null {
  try {
    const value = Number(Deno.readTextFileSync(path));
    return Number.isFinite(value) ? value : null;
  } catch {
    return null;
  }
}
