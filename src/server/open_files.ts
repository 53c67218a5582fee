/**
 * Descriptors that connections must leave free. Deno 2.9 accepts up to 128 waiting connections (tokio's
 * budget of a turn) before it closes those over the bound; the rest is for files, instances and workers.
 */
const RESERVED_FILES = 256;
/** Served even where that leaves fewer descriptors. */
const MIN_CONNECTIONS = 16;

/**
 * How many connections, of `wanted`, this process has file descriptors for. With too few, accepting
 * fails once and node:http never accepts again, or the process panics.
 */
export function connectionsWithinOpenFiles(wanted: number): number {
  return Math.min(wanted, Math.max(MIN_CONNECTIONS, maxOpenFiles() - RESERVED_FILES));
}

/** Descriptors that this process may open; Deno raises the soft limit to the hard one. */
function maxOpenFiles(): number {
  try {
    const limits = Deno.readTextFileSync("/proc/self/limits");
    return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Infinity);
  } catch {
    return Infinity; // no Linux: nothing is known
  }
}
