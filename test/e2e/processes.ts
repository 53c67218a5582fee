/** A process of this host. */
export interface ProcessEntry {
  readonly pid: number;
  /** Its command line, words separated by spaces. */
  readonly command: string;
}

/**
 * Processes whose working directory is `directory`: whatever a program started there has started in
 * turn, whoever its parent is now. Empty where there is no procfs.
 */
export function processesIn(directory: string): ProcessEntry[] {
  const found: ProcessEntry[] = [];
  for (const name of processNames()) {
    try {
      if (Deno.readLinkSync(`/proc/${name}/cwd`) !== directory) continue;
      const command = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ").trim();
      // A zombie has no command line; its parent has yet to notice.
      if (command !== "") found.push({ pid: Number(name), command });
    } catch {
      // It ended meanwhile, or belongs to another user.
    }
  }
  return found;
}

/** How many files, sockets and pipes a process has open; 0 for one that has ended. */
export function openFiles(pid: number): number {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
  } catch {
    return 0;
  }
}

function processNames(): string[] {
  try {
    return [...Deno.readDirSync("/proc")].map((entry) => entry.name)
      .filter((name) => /^\d+$/.test(name));
  } catch {
    return [];
  }
}
