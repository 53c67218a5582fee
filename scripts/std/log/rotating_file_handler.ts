import { FileHandler, type FileHandlerOptions } from "./file_handler.ts";
import type { LevelName } from "./levels.ts";

interface RotatingFileHandlerOptions extends FileHandlerOptions {
  /** Largest size of the file; a line that would exceed it begins a new file. */
  maxBytes: number;
  /** Files kept besides: `filename.1` is the latest. */
  maxBackupCount: number;
}

/** Writes lines to a file that is renamed to `filename.1`, `.2` and so on when it is full. */
export class RotatingFileHandler extends FileHandler {
  readonly #filename: string;
  readonly #maxBytes: number;
  readonly #maxBackupCount: number;
  readonly #encoder = new TextEncoder();
  #currentFileSize = 0;

  constructor(levelName: LevelName, options: RotatingFileHandlerOptions) {
    super(levelName, options);
    if (options.mode && options.mode !== "a") {
      throw new TypeError(`Mode ${options.mode} needs the real @std/log`);
    }
    this.#filename = options.filename;
    this.#maxBytes = options.maxBytes;
    this.#maxBackupCount = options.maxBackupCount;
  }

  override setup(): void {
    if (this.#maxBytes < 1) {
      throw new Error(`"maxBytes" must be >= 1: received ${this.#maxBytes}`);
    }
    if (this.#maxBackupCount < 1) {
      throw new Error(`"maxBackupCount" must be >= 1: received ${this.#maxBackupCount}`);
    }
    super.setup();
    this.#currentFileSize = Deno.statSync(this.#filename).size;
  }

  override log(msg: string): void {
    const bytes = this.#encoder.encode(msg).length + 1;
    if (this.#currentFileSize + bytes > this.#maxBytes) {
      this.rotateLogFiles();
      this.#currentFileSize = 0;
    }
    super.log(msg);
    this.#currentFileSize += bytes;
  }

  rotateLogFiles(): void {
    super.destroy();
    for (let i = this.#maxBackupCount - 1; i >= 0; i--) {
      const source = i === 0 ? this.#filename : `${this.#filename}.${i}`;
      try {
        Deno.renameSync(source, `${this.#filename}.${i + 1}`);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    super.setup();
  }
}
