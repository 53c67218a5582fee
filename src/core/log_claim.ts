/** Claims of log files: processes that were started apart never write to the same file. */
import { basename, dirname, extname, join } from "node:path";

/** Names that are tried for one log file. */
const MAX_NAMES = 100;

/** A log file of this process, and of the processes that it starts. */
export interface Claim {
  /** The file to write to: the one asked for, or one with a number in its name if that is taken. */
  readonly filename: string;
  /** Null if the file system cannot lock files, or this is no regular file. */
  readonly lock: FileLock | null;
}

/**
 * An exclusive lock of a file, until it is closed or the process ends (flock). It lies on the file itself,
 * so that no other file is left behind; other processes may still write to the file.
 */
export class FileLock {
  #file: Deno.FsFile | null;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** @returns null if another process holds it */
  static take(path: string): FileLock | null {
    const file = Deno.openSync(path, { append: true, create: true, mode: 0o600 });
    if (file.tryLockSync(true)) return new FileLock(file);
    file.close();
    return null;
  }

  /** Releases the lock and locks the file that has this path now, such as after a rotation. */
  move(path: string): void {
    const next = FileLock.take(path);
    if (next === null) return; // another program took it in between: sharing the file loses no lines
    this.release();
    this.#file = next.#file;
  }

  /** Does nothing the second time. */
  release(): void {
    this.#file?.close();
    this.#file = null;
  }
}

/** Claims `filename`, or the first of `name-2.ext`, `name-3.ext` and so on that no process has claimed. */
export function claimLogFile(filename: string): Claim {
  for (let number = 1; number <= MAX_NAMES; number++) {
    const candidate = number === 1 ? filename : numbered(filename, number);
    try {
      if (!isRegularOrNew(candidate)) return { filename: candidate, lock: null };
      const lock = FileLock.take(candidate);
      if (lock !== null) return { filename: candidate, lock };
    } catch {
      return { filename: candidate, lock: null }; // opening the file will fail too, with a warning
    }
  }
  return { filename, lock: null };
}

function isRegularOrNew(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    throw error;
  }
}

function numbered(filename: string, number: number): string {
  const extension = extname(filename);
  return join(dirname(filename), `${basename(filename, extension)}-${number}${extension}`);
}
