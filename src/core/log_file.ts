/** The log file: private to its user, rotated by size, reopened when it was moved away. */
import { type LogRecord, RotatingFileHandler } from "@std/log";
import type { FileLock } from "./log_claim.ts";

/** How often the file is looked at for having been moved away or filled by other processes. */
const CHECK_INTERVAL_MS = 1_000;

type StdLevel = ConstructorParameters<typeof RotatingFileHandler>[0];

export interface LogFileOptions {
  readonly filename: string;
  readonly formatter: (record: LogRecord) => string;
  /** Size at which the file is renamed to `filename.1`; null: never, as for processes that only share it. */
  readonly maxBytes: number | null;
  /** Renamed files that are kept. */
  readonly backups: number;
  /** Of the process that claimed the file; released with the file. */
  readonly lock: FileLock | null;
  /** Called once when the file cannot be written any more. */
  readonly onFailure: (error: Error) => void;
  /** Default: a second. */
  readonly checkIntervalMs?: number;
}

/**
 * A log file whose lines are there at once, and whose failure costs lines, never the service. Several
 * processes may append to it; the one with `maxBytes` rotates it, and the others follow.
 */
export class LogFile extends RotatingFileHandler {
  readonly #options: LogFileOptions;
  #failure: Error | null = null;
  /** Inode of the open file; null if it is not a regular file, which is never rotated. */
  #inode: number | null = null;
  #checkedMs = 0;

  constructor(level: StdLevel, options: LogFileOptions) {
    const { filename, formatter, maxBytes, backups } = options;
    super(level, {
      filename,
      formatter,
      maxBytes: maxBytes ?? Number.MAX_SAFE_INTEGER,
      maxBackupCount: backups,
    });
    this.#options = options;
  }

  /** Why the file cannot be written; null while it can. */
  get failure(): Error | null {
    return this.#failure;
  }

  override setup(): void {
    this.#attempt(() => this.#open());
  }

  override log(line: string): void {
    if (this.#failure) return;
    this.#attempt(() => {
      this.#check();
      super.log(line);
      this.flush();
    });
  }

  override rotateLogFiles(): void {
    if (this.#inode === null) return; // renaming a device would break the host
    privately(() => super.rotateLogFiles());
    this.#noteFile();
  }

  override destroy(): void {
    try {
      super.destroy();
    } catch {
      // Its last lines cannot be written, which was said when the first could not.
    }
    this.#options.lock?.release();
  }

  /** Opens the file anew, and writes to it again if that had failed. */
  reopen(): void {
    this.#failure = null;
    this.#attempt(() => this.#reopen());
  }

  #open(): void {
    privately(() => super.setup());
    this.#noteFile();
  }

  #reopen(): void {
    super.destroy();
    this.#open();
  }

  #noteFile(): void {
    const { filename, lock } = this.#options;
    const info = Deno.statSync(filename);
    this.#inode = info.isFile ? info.ino : null;
    this.#checkedMs = performance.now();
    lock?.move(filename);
  }

  /** Follows the file's name, and rotates a file that all processes together have filled. */
  #check(): void {
    const { filename, maxBytes, checkIntervalMs = CHECK_INTERVAL_MS } = this.#options;
    const nowMs = performance.now();
    if (this.#inode === null || nowMs - this.#checkedMs < checkIntervalMs) return;
    this.#checkedMs = nowMs;
    const found = statIfThere(filename);
    if (found?.ino !== this.#inode) return this.#reopen();
    if (maxBytes === null || found.size < maxBytes) return;
    this.rotateLogFiles();
    this.#reopen(); // which has the handler count from the new file's size
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#failure = error as Error;
      this.#options.onFailure(this.#failure);
    }
  }
}

function statIfThere(path: string): Deno.FileInfo | null {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Files that are made by `action` are for their user alone: the handler has no option for it. */
function privately(action: () => void): void {
  const before = Deno.umask(0o077);
  try {
    action();
  } finally {
    Deno.umask(before);
  }
}
