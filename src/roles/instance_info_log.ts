/** The file of `--log-instance-info`. */
import type { Clock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import { logger } from "../core/log.ts";
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
  readonly options: InstanceInfoCsvOptions & { readonly pollingInterval: number };
  /** The last reports of the serving instances. */
  readonly infos: () => readonly InstanceInfo[];
}

/** Writes a row per busy instance in every `--polling-interval`. */
export class InstanceInfoLog {
  readonly #config: InstanceInfoLogConfig;
  readonly #csv: InstanceInfoCsv;
  readonly #path: string;
  readonly #encoder = new TextEncoder();
  /** Null after a failed write. */
  #file: Deno.FsFile | null;
  #cancel: () => void = () => {};

  /** @throws {UsageError} the file cannot be written */
  constructor(config: InstanceInfoLogConfig) {
    this.#config = config;
    this.#csv = new InstanceInfoCsv(config.options);
    this.#path = `${config.logFilename}_instance.csv`;
    try {
      this.#file = Deno.openSync(this.#path, {
        write: true,
        create: true,
        truncate: true,
        mode: 0o600,
      });
    } catch (error) {
      throw new UsageError(
        `--log-instance-info: cannot write ${this.#path} (${(error as Error).message}); choose ` +
          "another --log-filename",
        { cause: error },
      );
    }
    this.#write(instanceInfoHeader);
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
    if (rows !== "") this.#write(rows);
  }

  /** Gives the file up if it cannot be written; the service goes on without it. */
  #write(text: string): void {
    const bytes = this.#encoder.encode(text);
    try {
      for (let written = 0; this.#file && written < bytes.length;) {
        written += this.#file.writeSync(bytes.subarray(written));
      }
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
