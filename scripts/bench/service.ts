/** Starts `llumnix serve` for a benchmark, with an HTTP client that takes little processor time. */
import { Buffer } from "node:buffer";

export interface BenchService extends AsyncDisposable {
  readonly port: number;
  readonly pid: number;
  /** Milliseconds from the start of the process until it served. */
  readonly startMs: number;
  /** Resident memory of all its processes. */
  residentBytes(): Promise<number>;
}

/** The program as users run it: the executable if it is built, otherwise the source. */
export async function programCommand(): Promise<string[]> {
  const executable = new URL("../../dist/llumnix", import.meta.url).pathname;
  try {
    await Deno.stat(executable);
    return [executable];
  } catch {
    return [Deno.execPath(), "run", "-A", new URL("../../mod.ts", import.meta.url).pathname];
  }
}

export interface ServiceOptions {
  /** Environment variables, added to those of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called with every line of the log. If absent, only warnings are logged, to stderr. */
  readonly onLog?: (line: string) => void;
}

/**
 * Environment of a service whose memory is watched. V8 lets its heap grow for some ten thousand requests before
 * it collects old objects. With these flags every collection is a full one, so that resident memory is memory
 * in use.
 */
export const collectAll: Readonly<Record<string, string>> = {
  DENO_V8_FLAGS: "--gc-global,--min-semi-space-size=8,--max-semi-space-size=8",
};

/** Starts a service and waits until it is ready. */
export async function startService(
  args: readonly string[],
  { env, onLog }: ServiceOptions = {},
): Promise<BenchService> {
  const port = freePort();
  const [program, ...words] = await programCommand();
  const startedMs = performance.now();
  const child = new Deno.Command(program, {
    args: [
      ...[...words, "serve", `--port=${port}`, "--log-filename="],
      ...[`--log-level=${onLog ? "info" : "warning"}`, ...args],
    ],
    env,
    stdin: "null",
    stdout: "null",
    stderr: onLog ? "piped" : "inherit",
  }).spawn();
  if (onLog) readLines(child.stderr, onLog);
  let isRunning = true;
  child.status.then(() => isRunning = false);
  while (!await isReady(port)) {
    if (!isRunning) throw new Error("the service ended before it was ready");
  }
  return {
    port,
    pid: child.pid,
    startMs: performance.now() - startedMs,
    residentBytes: () => residentBytes(child.pid),
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.status;
    },
  };
}

async function readLines(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  take: (line: string) => void,
): Promise<void> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) take(line);
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

async function isReady(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/is_ready`);
    return await response.text() === "true";
  } catch {
    return false;
  }
}

async function residentBytes(pid: number): Promise<number> {
  const children = await Deno.readTextFile(`/proc/${pid}/task/${pid}/children`);
  let bytes = 0;
  for (const child of children.split(" ").filter(Boolean)) bytes += await residentBytes(+child);
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return bytes + 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0);
}

/** User and system time of all threads of a process, without its children's (proc_pid_stat(5)). */
export function cpuMsOf(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticksPerSecond = 100; // of every Linux that Deno runs on
  return (Number(fields[11]) + Number(fields[12])) * 1000 / ticksPerSecond;
}

/** One keep-alive HTTP/1.1 connection that sends one request after another. */
export class Client implements Disposable {
  readonly #connection: Deno.TcpConn;
  readonly #chunk = new Uint8Array(256 << 10);
  #rest = Buffer.alloc(0);

  private constructor(connection: Deno.TcpConn) {
    this.#connection = connection;
  }

  static async connect(port: number): Promise<Client> {
    return new Client(await Deno.connect({ hostname: "127.0.0.1", port }));
  }

  async post(path: string, body: unknown): Promise<void> {
    const text = JSON.stringify(body);
    const request = `POST ${path} HTTP/1.1\r\nhost: localhost\r\n` +
      `content-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`;
    await writeAll(this.#connection, new TextEncoder().encode(request));
  }

  /**
   * Reads a streamed answer to its end.
   * @param onEvents called with the number of events of each read
   * @throws {Error} the service refused the request
   */
  async readEvents(onEvents: (count: number) => void): Promise<void> {
    let tail: string | null = null;
    while (true) {
      const n = await this.#connection.read(this.#chunk);
      if (n === null) throw new Error("the service closed the connection");
      const bytes = Buffer.from(this.#chunk.buffer, 0, n);
      if (tail === null && !bytes.toString("latin1", 0, 12).endsWith(" 200")) {
        throw new Error(bytes.toString("utf8", 0, 1000));
      }
      onEvents(count(bytes, "data: {"));
      tail = ((tail ?? "") + bytes.toString("latin1", Math.max(0, n - 64))).slice(-64);
      if (tail.endsWith("0\r\n\r\n")) return;
    }
  }

  /** Reads an answer that has a length and returns its body. */
  async readBody(): Promise<string> {
    let end: number, length = 0;
    while (true) {
      end = this.#rest.indexOf("\r\n\r\n");
      if (end >= 0) {
        const head = this.#rest.toString("latin1", 0, end);
        length = Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0);
        if (this.#rest.length >= end + 4 + length) break;
      }
      const n = await this.#connection.read(this.#chunk);
      if (n === null) throw new Error("the service closed the connection");
      this.#rest = Buffer.concat([this.#rest, this.#chunk.subarray(0, n)]);
    }
    const body = this.#rest.toString("utf8", end + 4, end + 4 + length);
    this.#rest = this.#rest.subarray(end + 4 + length);
    return body;
  }

  [Symbol.dispose](): void {
    this.#connection.close();
  }
}

async function writeAll(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
}

function count(bytes: Buffer, pattern: string): number {
  let found = 0;
  for (let at = bytes.indexOf(pattern); at >= 0; at = bytes.indexOf(pattern, at + 1)) found++;
  return found;
}
