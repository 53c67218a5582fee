/** The file of `--log-instance-info`. */
import type { Clock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import { logger } from "../core/log.ts";
import type { LoggingOptions } from "../core/options.ts";
import type { InstanceInfo } from "../core/protocol/instance_info.ts";
import {
  InstanceInfoCsv,
  type InstanceInfoCsvOptions,
  instanceInfoHeader,
} from "./instance_info_csv.ts";

export interface InstanceInfoLogConfig {
  readonly clock: Clock;
  /** The log file, to whose name this file's name adds `_instance.csv`. */
  readonly logFilename: string;
  readonly options:
    & InstanceInfoCsvOptions
    & Pick<LoggingOptions, "logMaxBytes" | "logBackups">
    & { readonly pollingInterval: number };
  /** The manager takes the place of another one, whose rows stay. Default: a new file begins. */
  readonly continues?: boolean;
  /** The last reports of the serving instances. */
  readonly infos: () => readonly InstanceInfo[];
}

/**
 * Writes a row per busy instance in every `--polling-interval`. A file of `--log-max-bytes` is renamed
 * to `FILE.1`, as log files are, and the next one begins with the header.
 */
export class InstanceInfoLog {
  readonly #config: InstanceInfoLogConfig;
  readonly #csv: InstanceInfoCsv;
  readonly #path: string;
  readonly #encoder = new TextEncoder();
  /** Null after a failed write. */
  #file: Deno.FsFile | null;
  #fileBytes = 0;
  #cancel: () => void = () => {};

  /** @throws {UsageError} the file cannot be written */
  constructor(config: InstanceInfoLogConfig) {
    this.#config = config;
    this.#csv = new InstanceInfoCsv(config.options);
    this.#path = `${config.logFilename}_instance.csv`;
    let isContinued = false;
    try {
      isContinued = config.continues === true && hasHeader(this.#path);
      this.#file = this.#open(isContinued);
    } catch (error) {
      throw new UsageError(
        `--log-instance-info: cannot write ${this.#path} (${(error as Error).message}); choose ` +
          "another --log-filename",
        { cause: error },
      );
    }
    if (!isContinued) this.#write(instanceInfoHeader);
    this.#poll();
  }

  /** Writes the last rows, and closes the file. */
  close(): void {
    this.#cancel();
    this.#writeRows();
    this.#file?.close();
    this.#file = null;
  }

  #poll(): void {
    const { clock, options } = this.#config;
    this.#cancel = clock.after(options.pollingInterval * 1000, () => {
      this.#poll();
      this.#writeRows();
    });
  }

  #writeRows(): void {
    const rows = this.#csv.rows(this.#config.infos());
    if (rows === "" || this.#file === null) return;
    const { logMaxBytes } = this.#config.options;
    const isFull = logMaxBytes > 0 && this.#fileBytes >= logMaxBytes;
    if (isFull) this.#attempt(() => this.#rotate());
    this.#write(rows);
  }

  #open(isContinued = false): Deno.FsFile {
    this.#fileBytes = isContinued ? Deno.statSync(this.#path).size : 0;
    const how = isContinued ? { append: true } : { write: true, create: true, truncate: true };
    return Deno.openSync(this.#path, { ...how, mode: 0o600 });
  }

  /** FILE.1 becomes FILE.2 and so on, FILE becomes FILE.1, and a new FILE begins. */
  #rotate(): void {
    for (let i = this.#config.options.logBackups; i >= 1; i--) {
      const older = i === 1 ? this.#path : `${this.#path}.${i - 1}`;
      try {
        Deno.renameSync(older, `${this.#path}.${i}`);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error; // there are not so many yet
      }
    }
    this.#file?.close();
    this.#file = null;
    this.#file = this.#open();
    this.#write(instanceInfoHeader);
  }

  #write(text: string): void {
    const bytes = this.#encoder.encode(text);
    this.#attempt(() => {
      for (let written = 0; this.#file && written < bytes.length;) {
        written += this.#file.writeSync(bytes.subarray(written));
      }
      this.#fileBytes += bytes.length;
    });
  }

  /** Gives the file up if it cannot be written; the service goes on without it. */
  #attempt(action: () => void): void {
    try {
      action();
    } catch (cause) {
      this.#file?.close();
      this.#file = null;
      logger("instance-info").warn("cannot write the file; it gets no more rows", {
        file: this.#path,
        cause,
      });
    }
  }
}

/** Whether there is a file with the columns of this version. */
function hasHeader(path: string): boolean {
  try {
    using file = Deno.openSync(path);
    const start = new Uint8Array(instanceInfoHeader.length);
    const bytes = file.readSync(start) ?? 0;
    return new TextDecoder().decode(start.subarray(0, bytes)) === instanceInfoHeader;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
