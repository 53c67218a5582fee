/** The servers that are measured: one that runs, or one that is started for it. */
import { UsageError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import { selfCommand } from "../../core/self_command.ts";
import { ADMIN_TOKEN_VARIABLE } from "../../roles/admin_token.ts";
import type { BenchOptions } from "./arguments.ts";
import { splitWords } from "./words.ts";

/** Time that a server has to start. Models are loaded, kernels compiled. */
const START_TIMEOUT_MS = 600_000;
const POLL_MS = 50;
/** Time that a server has to stop before it is killed. */
const STOP_TIMEOUT_MS = 60_000;
/** Lines of its output that are shown if it does not start. */
const SHOWN_LINES = 20;

/** A server of the command line. */
export interface ServerSpec {
  /** As it was written. */
  readonly name: string;
  /** Null for a server that runs already. */
  readonly command: readonly string[] | null;
  readonly baseUrl: URL;
  /** Whether it is `llumnix serve`. */
  readonly isOurs: boolean;
  readonly adminToken: string | null;
}

/** @param text of `--serve` or `--compare`; null for the server of `--base-url` */
export function serverSpec(text: string | null, options: BenchOptions): ServerSpec {
  const adminToken = options.adminToken ?? Deno.env.get(ADMIN_TOKEN_VARIABLE) ?? null;
  const given = options.baseUrl === null
    ? urlOf(`http://${hostOf(options.host)}:${options.port}`, "--host and --port: ")
    : urlOf(options.baseUrl);
  if (text === null) {
    return { name: given.href, command: null, baseUrl: given, isOurs: false, adminToken };
  }
  if (/^https?:\/\//.test(text)) {
    return { name: text, command: null, baseUrl: urlOf(text), isOurs: false, adminToken };
  }
  const words = splitWords(text);
  const isOurs = words.length === 0 || words[0] === "serve" || words[0].startsWith("-");
  if (!isOurs) return { name: text, command: words, baseUrl: given, isOurs, adminToken };
  const args = words[0] === "serve" ? words.slice(1) : words;
  const has = (option: string) => args.some((word) => word.split("=")[0] === option);
  const port = has("--port") ? portIn(args) : freePort();
  return {
    name: text,
    command: [
      ...[...selfCommand(), "serve", ...args],
      ...(has("--port") ? [] : [`--port=${port}`]),
      ...(has("--log-filename") ? [] : ["--log-filename="]),
      ...(has("--log-level") ? [] : ["--log-level=warning"]),
    ],
    baseUrl: urlOf(`http://127.0.0.1:${port}`),
    isOurs,
    adminToken: adminToken ?? crypto.randomUUID(),
  };
}

function urlOf(text: string, options = "--base-url "): URL {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/.test(url.protocol)) return url;
  throw new UsageError(`${options}${text}: expected an address such as http://127.0.0.1:8000`);
}

/** An IPv6 address has brackets in a URL. */
function hostOf(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

function portIn(args: readonly string[]): number {
  const at = args.findIndex((word) => word.split("=")[0] === "--port");
  const port = Number(args[at].split("=")[1] ?? args[at + 1]);
  if (Number.isInteger(port) && port > 0 && port < 65536) return port;
  throw new UsageError("--serve: --port must be a port, 1 to 65535; leave it out for a free one");
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** A server that runs. */
export interface RunningServer extends AsyncDisposable {
  readonly spec: ServerSpec;
}

/**
 * Starts a server, unless it runs already, and waits until it serves.
 * @param isServing asks the server
 * @param signal gives up
 * @throws {UsageError} it cannot be started, or ends before it serves
 */
export async function startServer(
  spec: ServerSpec,
  isServing: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<RunningServer> {
  if (spec.command === null) return { spec, [Symbol.asyncDispose]: () => Promise.resolve() };
  const child = spawn(spec);
  const output = new LastLines(child.stderr);
  let status: Deno.CommandStatus | null = null;
  child.status.then((ended) => status = ended);
  const server = { spec, [Symbol.asyncDispose]: () => stop(child) };
  const startMs = Date.now();
  while (!await isServing()) {
    if (status !== null) throw didNotStart(spec, `ended (${describe(status)})`, output);
    if (signal.aborted || Date.now() - startMs > START_TIMEOUT_MS) {
      await stop(child);
      throw didNotStart(spec, signal.aborted ? "was stopped" : "does not serve", output);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return server;
}

function spawn({ command, adminToken }: ServerSpec): Deno.ChildProcess {
  const [program, ...args] = command!;
  try {
    return new Deno.Command(program, {
      args,
      env: adminToken === null ? {} : { [ADMIN_TOKEN_VARIABLE]: adminToken },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    throw new UsageError(`cannot start ${program}: ${fileProblem(error)}`, { cause: error });
  }
}

async function stop(child: Deno.ChildProcess): Promise<void> {
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
  try {
    child.kill("SIGTERM");
  } catch {
    // It has ended.
  }
  await child.status;
  clearTimeout(timer);
}

function didNotStart({ name }: ServerSpec, what: string, output: LastLines): UsageError {
  const lines = output.lines.length === 0 ? "" : `:\n${output.lines.join("\n")}`;
  return new UsageError(`the server "${name}" ${what}${lines}`);
}

function describe({ code, signal }: Deno.CommandStatus): string {
  return signal === null ? `exit code ${code}` : signal;
}

/** Reads a stream to its end, and keeps its last lines. */
class LastLines {
  readonly lines: string[] = [];

  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#read(stream);
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!.slice(-10_000);
      this.lines.push(...lines);
      if (this.lines.length > SHOWN_LINES) this.lines.splice(0, this.lines.length - SHOWN_LINES);
    }
  }
}
