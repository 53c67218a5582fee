/** Processes of this host, as procfs has them; where there is none, none is found. */

/** Where the state and the start time lie in /proc/PID/stat, behind the command's name. */
const STATE_FIELD = 0;
const START_TIME_FIELD = 19;

/** One process, told from a later one of the same pid by the time of its start. */
export class HostProcess {
  private constructor(
    readonly pid: number,
    private readonly startTime: string,
    private readonly procfs: string,
  ) {}

  /** @param start the result of `startOf`; null if no such process runs on this host */
  static started(pid: number, start: string, procfs = "/proc"): HostProcess | null {
    if (HostProcess.startOf(pid, procfs) !== start) return null;
    return new HostProcess(pid, start.slice(start.lastIndexOf(":") + 1), procfs);
  }

  /**
   * Together with the pid, identifies a process among those of all hosts and containers. Start time and
   * pid alone do not: containers that start at the same moment share them. Undefined if it is not known.
   */
  static startOf(pid: number, procfs = "/proc"): string | undefined {
    const startTime = startTimeOf(pid, procfs), bootId = bootIdOf(procfs);
    const namespace = pidNamespaceOf(pid, procfs);
    if (startTime === null || bootId === null || namespace === null) return undefined;
    return `${bootId}:${namespace}:${startTime}`;
  }

  /** From the moment on when it has given its memory back. */
  hasEnded(): boolean {
    const { pid, procfs, startTime } = this;
    return startTimeOf(pid, procfs) !== startTime || !hasCommandLine(pid, procfs);
  }

  /** False when it has ended, or is another user's. */
  signal(signal: "SIGTERM" | "SIGKILL"): boolean {
    if (this.hasEnded()) return false;
    try {
      Deno.kill(this.pid, signal);
      return true;
    } catch {
      return false;
    }
  }
}

/** Of this start of the host, also in its containers. */
function bootIdOf(procfs: string): string | null {
  try {
    return Deno.readTextFileSync(`${procfs}/sys/kernel/random/boot_id`).trim();
  } catch {
    return null;
  }
}

/** Null for a process that has ended or is another user's. */
function pidNamespaceOf(pid: number, procfs: string): string | null {
  try {
    return Deno.readLinkSync(`${procfs}/${pid}/ns/pid`);
  } catch {
    return null;
  }
}

/** In ticks since the start of the host; null for a process that has ended, reaped or not. */
function startTimeOf(pid: number, procfs: string): string | null {
  try {
    const text = Deno.readTextFileSync(`${procfs}/${pid}/stat`);
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return /[ZX]/i.test(fields[STATE_FIELD]) ? null : fields[START_TIME_FIELD];
  } catch {
    return null;
  }
}

/** A process that is ending has none. */
function hasCommandLine(pid: number, procfs: string): boolean {
  try {
    return Deno.readTextFileSync(`${procfs}/${pid}/cmdline`) !== "";
  } catch {
    return false;
  }
}
