/**
 * Descriptors that connections must leave free. Deno 2.9 accepts up to 128 waiting connections (tokio's
 * budget of a turn) before it closes those over the bound; the rest is for files, instances and workers.
 */
const RESERVED_FILES = 256;
/** Connections that are served even if they leave fewer descriptors. */
const MIN_CONNECTIONS = 16;

/**
 * How many connections, of `wanted`, this process has file descriptors for. Without a free descriptor,
 * accepting fails, and Deno 2.9 does not accept again by itself (`listeners.ts`).
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
