/** The other process of a section: a program of this folder that talks in lines of JSON. */
import { TextLineStream } from "../../src/cli/doctor/lines.ts";

/** A process that was started, and what it says. */
export class Peer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;

  constructor(program: string, order: unknown, env: Readonly<Record<string, string>> = {}) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--no-check", new URL(program, import.meta.url).href],
        JSON.stringify(order),
      ],
      env: { ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  /** The next message. @throws {Error} the process ended before */
  async next<T>(): Promise<T> {
    for (;;) {
      const { value } = await this.#lines.read();
      if (value === undefined) throw new Error("the other process ended");
      if (value.startsWith("{")) return JSON.parse(value); // NCCL may write lines of its own
    }
  }

  async kill(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await this.#lines.cancel();
  }
}

/** In the other process: what it was started with, and a message to the first one. */
export const order = () => JSON.parse(Deno.args[0]);
export const say = (message: unknown) => console.log(JSON.stringify(message));
