/**
 * A second process for tests of memory and events that processes share. It runs orders, one a line of
 * JSON, and answers each with a line.
 */
import { stdin } from "node:process";
import { createInterface } from "node:readline";
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { bench, directory, filled } from "./device.ts";

/** Orders, with their arguments and answers. */
interface Orders {
  /** Opens memory of 4096 bytes; answers its address. */
  open(handle: number[]): string;
  close(at: string): void;
  /** The byte values in the memory. */
  values(at: string): number[];
  fill(at: string, byte: number): void;
  /** Allocates 4096 bytes of this value; answers address and handle. */
  allocate(byte: number): [string, number[]];
  free(at: string): void;
  /** Opens an event and makes work wait for it that copies 8 bytes from `at`; does not wait itself. */
  waitThenCopy(event: number[], at: string): void;
  /** Waits for that work; answers the first byte that it copied. */
  finish(): number;
}

/** The test's end. A refused order throws an Error with the peer's text. */
export class Peer {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: AsyncIterator<string>;
  #killed = false;

  constructor(settings: string) {
    const file = decodeURIComponent(new URL(import.meta.url).pathname);
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", file],
      stdin: "piped",
      stdout: "piped",
      env: { LLUMNIX_SOFTWARE_DEVICE: settings },
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#lines = linesOf(this.#child.stdout);
  }

  get pid(): number {
    return this.#child.pid;
  }

  async call<K extends keyof Orders>(
    order: K,
    ...given: Parameters<Orders[K]>
  ): Promise<ReturnType<Orders[K]>> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify([order, ...given]) + "\n"));
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`the peer ended during ${order}`);
    const { answer, error } = JSON.parse(value);
    if (error !== undefined) throw new Error(error);
    return answer;
  }

  async kill(): Promise<void> {
    if (this.#killed) return;
    this.#killed = true;
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#input.abort().catch(() => {});
    await this.#lines.return?.();
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream() as never)) {
    text += part;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      yield text.slice(0, end);
      text = text.slice(end + 1);
    }
  }
}

async function serve(): Promise<void> {
  const cuda = openCudart({ from: directory! });
  cuda.setDevice(0);
  const { read, host } = bench(cuda);
  const stream = cuda.createStream(), copied = host(8);
  const orders: Orders = {
    open: (handle) => String(cuda.openIpcMemHandle(Uint8Array.from(handle))),
    close: (at) => cuda.closeIpcMemHandle(BigInt(at)),
    values: (at) => [...new Set(read(BigInt(at), 4096))],
    fill: (at, byte) => {
      cuda.copy(BigInt(at), host(filled(4096, byte)).at, 4096, stream);
      cuda.synchronizeStream(stream);
    },
    allocate: (byte) => {
      const at = cuda.malloc(4096);
      orders.fill(String(at), byte);
      return [String(at), [...cuda.ipcMemHandle(at)]];
    },
    free: (at) => cuda.free(BigInt(at)),
    waitThenCopy: (event, at) => {
      cuda.waitEvent(stream, cuda.openIpcEventHandle(Uint8Array.from(event)));
      cuda.copy(copied.at, BigInt(at), 8, stream);
    },
    finish: () => {
      cuda.synchronizeStream(stream);
      return copied.bytes[0];
    },
  };
  for await (const line of createInterface({ input: stdin })) {
    const [order, ...given] = JSON.parse(line);
    let answer;
    try {
      answer = {
        answer: (orders[order as keyof Orders] as (...all: unknown[]) => unknown)(...given),
      };
    } catch (error) {
      answer = { error: String(error) };
    }
    console.log(JSON.stringify(answer));
  }
}

if (import.meta.main) await serve();
