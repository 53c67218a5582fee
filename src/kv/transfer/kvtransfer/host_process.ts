/** Which process an entry of the naming directory is of, and whether it still lives: from /proc. */

/** A process, told from every other one of the host, also from one that gets its number later. */
export interface HostProcess {
  readonly hostname: string;
  /** A new one with each start of the host. */
  readonly bootId: string;
  /** Containers of one host count their processes apart from each other. */
  readonly pidNamespace: string;
  readonly pid: number;
  /** Clock ticks from the start of the host to that of the process. */
  readonly startTicks: number;
}

/** Fields of /proc/PID/stat after the name, which is in parentheses and may hold anything. */
const STATE_FIELD = 0, START_FIELD = 19;

/** @throws {Deno.errors.NotFound} the host has no /proc */
export function thisProcess(): HostProcess {
  return {
    hostname: Deno.hostname(),
    bootId: Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim(),
    pidNamespace: Deno.readLinkSync("/proc/self/ns/pid"),
    pid: Deno.pid,
    startTicks: startTicks(Deno.pid) ?? 0,
  };
}

/** Whether two processes see each other's number: one start of one host, one namespace. */
export function isNeighbour(a: HostProcess, b: HostProcess): boolean {
  return a.bootId === b.bootId && a.pidNamespace === b.pidNamespace;
}

/** Whether a neighbour still runs. */
export function isAlive({ pid, startTicks: expected }: HostProcess): boolean {
  return startTicks(pid) === expected;
}

/** Null if no process has the number, or one that has ended and waits for its parent to notice. */
function startTicks(pid: number): number | null {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return "ZX".includes(fields[STATE_FIELD]) ? null : Number(fields[START_FIELD]);
  } catch {
    return null;
  }
}
