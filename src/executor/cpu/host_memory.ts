/** Text of a file; null where there is none. */
type ReadText = (path: string) => string | null;

/** Names of a version of control groups (Linux: admin-guide/cgroup-v2, cgroup-v1/memory). */
interface Hierarchy {
  readonly root: string;
  readonly limit: string;
  readonly usage: string;
  /** Entry of memory.stat: cache of files that is given up when memory is short. */
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
 * Memory that a new allocation can have without swapping, in bytes: what the system has available,
 * and within the limits of the control groups where there are some.
 */
export function availableMemoryBytes(): number {
  const { available } = Deno.systemMemoryInfo();
  return Math.max(0, Math.min(available, freeWithinGroups(readText)));
}

/** Bytes that this process's control group and those around it leave; infinite without a limit. */
export function freeWithinGroups(read: ReadText): number {
  let least = Infinity;
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const match = /^\d+:([^:]*):(.*)$/.exec(line);
    if (!match) continue;
    const [, controllers, path] = match;
    const isVersion1 = controllers.split(",").includes("memory");
    if (controllers !== "" && !isVersion1) continue;
    // Inside a container the path may be the host's, of which only the root is to be seen.
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
