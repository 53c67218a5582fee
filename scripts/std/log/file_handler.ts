import { BaseHandler, type BaseHandlerOptions } from "./base_handler.ts";
import type { LevelName } from "./levels.ts";

export type LogMode = "a" | "w" | "x";

export interface FileHandlerOptions extends BaseHandlerOptions {
  filename: string;
  /** Append (the default), truncate, or fail when the file exists. */
  mode?: LogMode;
  /** Bytes gathered before a write; 4096 by default. */
  bufferSize?: number;
}

/** Writes lines to a file, through a buffer that `flush` and the end of the process empty. */
export class FileHandler extends BaseHandler {
  readonly #filename: string;
  readonly #mode: LogMode;
  readonly #buffer: Uint8Array;
  readonly #encoder = new TextEncoder();
  readonly #onUnload = () => this.destroy();
  #length = 0;
  #file: Deno.FsFile | undefined;

  constructor(levelName: LevelName, options: FileHandlerOptions) {
    super(levelName, options);
    this.#filename = options.filename;
    this.#mode = options.mode ?? "a";
    this.#buffer = new Uint8Array(options.bufferSize ?? 4096);
  }

  override setup(): void {
    this.#file = Deno.openSync(this.#filename, {
      write: true,
      append: this.#mode === "a",
      truncate: this.#mode !== "a",
      create: this.#mode !== "x",
      createNew: this.#mode === "x",
    });
    this.#length = 0;
    addEventListener("unload", this.#onUnload);
  }

  override log(msg: string): void {
    const bytes = this.#encoder.encode(msg + "\n");
    if (bytes.length > this.#buffer.length - this.#length) this.flush();
    if (bytes.length > this.#buffer.length) return this.#write(bytes);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  flush(): void {
    if (this.#length === 0 || !this.#file) return;
    this.#write(this.#buffer.subarray(0, this.#length));
    this.#length = 0;
  }

  override destroy(): void {
    this.flush();
    this.#file?.close();
    this.#file = undefined;
    removeEventListener("unload", this.#onUnload);
  }

  #write(bytes: Uint8Array): void {
    for (let written = 0; written < bytes.length;) {
      written += this.#file!.writeSync(bytes.subarray(written));
    }
  }
}
