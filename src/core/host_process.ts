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

  /** @param words the process's command line has all of them; null if no such process runs */
  static find(pid: number, words: readonly string[], procfs = "/proc"): HostProcess | null {
    const startTime = startTimeOf(pid, procfs);
    const line = commandLineOf(pid, procfs);
    if (startTime === null || !words.every((word) => line.includes(word))) return null;
    return new HostProcess(pid, startTime, procfs);
  }

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
    const namespace = namespaceOf(pid, "pid", procfs);
    if (startTime === null || bootId === null || namespace === null) return undefined;
    return `${bootId}:${namespace}:${startTime}`;
  }

  /** All whose command line has all of these words. */
  static findAll(words: readonly string[]): HostProcess[] {
    return pids().flatMap((pid) => HostProcess.find(pid, words) ?? []);
  }

  /** From the moment on when it has given its memory back. */
  hasEnded(): boolean {
    const { pid, procfs, startTime } = this;
    return startTimeOf(pid, procfs) !== startTime || commandLineOf(pid, procfs).length === 0;
  }

  /** In another container, an address of the same name is somebody else's. */
  isInOurContainer(): boolean {
    const mounts = namespaceOf(this.pid, "mnt", "/proc");
    return mounts !== null && mounts === namespaceOf(Deno.pid, "mnt", "/proc");
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

function pids(): number[] {
  try {
    return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter(Number.isInteger);
  } catch {
    return [];
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
function namespaceOf(pid: number, kind: "pid" | "mnt", procfs: string): string | null {
  try {
    return Deno.readLinkSync(`${procfs}/${pid}/ns/${kind}`);
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

/** Empty for a process that is ending or has ended. */
function commandLineOf(pid: number, procfs: string): string[] {
  try {
    const text = Deno.readTextFileSync(`${procfs}/${pid}/cmdline`);
    return text === "" ? [] : text.split("\0");
  } catch {
    return [];
  }
}
