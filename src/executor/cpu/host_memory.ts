import type { UnusedClaims } from "./memory_claims.ts";

/** The text of a file; null if there is no such file. */
type ReadText = (path: string) => string | null;

/** File names of a version of control groups (Linux: admin-guide/cgroup-v2, cgroup-v1/memory). */
interface Hierarchy {
  readonly root: string;
  readonly limit: string;
  readonly usage: string;
  /** Entry of memory.stat: file cache that the system gives up when memory is short. */
  readonly reclaimable: string;
}

const version2: Hierarchy = {
  root: "/sys/fs/cgroup",
  limit: "memory.max",
  usage: "memory.current",
  reclaimable: "inactive_file",
};

const version1: Hierarchy = {
  root: "/sys/fs/cgroup/memory",
  limit: "memory.limit_in_bytes",
  usage: "memory.usage_in_bytes",
  reclaimable: "total_inactive_file",
};

/**
 * Bytes that can be allocated without swapping: the system's available memory, or less if a control group
 * limits it.
 * @param claims of others, which are not available either; default: none are known
 */
export function availableMemoryBytes(
  { hostBytes, groupBytes }: UnusedClaims = { hostBytes: 0, groupBytes: 0 },
): number {
  const { available } = Deno.systemMemoryInfo();
  const inGroups = freeWithinGroups(readText);
  return Math.max(0, Math.min(available - hostBytes, inGroups - groupBytes));
}

/** Bytes that this process's control group and its parents leave; Infinity without a limit. */
export function freeWithinGroups(read: ReadText): number {
  let least = Infinity;
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const match = /^\d+:([^:]*):(.*)$/.exec(line);
    if (!match) continue;
    const [, controllers, path] = match;
    const isVersion1 = controllers.split(",").includes("memory");
    if (controllers !== "" && !isVersion1) continue;
    // Inside a container the path may be the host's; then only the root is visible here.
    for (let group = path.replace(/\/$/, "");; group = group.slice(0, group.lastIndexOf("/"))) {
      least = Math.min(least, freeInGroup(isVersion1 ? version1 : version2, group, read));
      if (group === "") break;
    }
  }
  return least;
}

function freeInGroup(names: Hierarchy, group: string, read: ReadText): number {
  const path = (name: string) => `${names.root}${group}/${name}`;
  const limit = parseInt(read(path(names.limit)) ?? "");
  const usage = parseInt(read(path(names.usage)) ?? "");
  if (Number.isNaN(limit) || Number.isNaN(usage)) return Infinity; // no group, or "max"
  const statistics = read(path("memory.stat")) ?? "";
  const reclaimable = new RegExp(`^${names.reclaimable} (\\d+)$`, "m").exec(statistics)?.[1] ?? "0";
  return limit - usage + Number(reclaimable);
}

function readText(path: string): string | null {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return null;
  }
}
