/**
 * Runs the program as a user would: the built executable, in an empty directory, with an empty
 * environment. `LLUMNIX_E2E_SOURCE=1` runs `mod.ts` instead, where a build takes too long.
 *
 * @example
 * ```ts
 * await using server = await startServer(["--initial-instances", "2"]);
 * const models = await fetch(`${server.url}/v1/models`);
 * ```
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { freePort } from "../free_port.ts";
import { type ProcessEntry, processesIn } from "./processes.ts";

// `deno test` prints an error's cause, but not the two errors inside a SuppressedError.
Object.defineProperty(SuppressedError.prototype, "cause", {
  configurable: true,
  get(this: SuppressedError): unknown {
    return new AggregateError([this.suppressed, this.error], "the test and its disposal failed");
  },
});

const root = join(import.meta.dirname!, "../..");
/** True when the tests run the source instead of the executable. */
export const fromSource = Deno.env.get("LLUMNIX_E2E_SOURCE") === "1";
export const executablePath = join(root, "dist/llumnix");

/** A start that says nothing for this long hangs. */
const silenceLimitMs = 120_000;
const pollIntervalMs = 25;

export interface ProgramOptions {
  /** The whole environment; empty by default. */
  readonly env?: Readonly<Record<string, string>>;
  /** Program to run instead of the built one, with leading arguments. */
  readonly command?: readonly string[];
  /** A program that starts it, with leading arguments; the whole command follows them. */
  readonly launcher?: readonly string[];
  /** Serve the model that is served without `--model`, instead of `llumnix-tiny`. */
  readonly defaultModel?: boolean;
  /** Time that children get to notice the end of their parent; 30 s by default. */
  readonly lingerLimitMs?: number;
}

/** A started program. Disposing of it kills what is left and checks that nothing was. */
export class Program implements AsyncDisposable {
  /** The empty directory in which it runs. */
  readonly directory: string;
  readonly pid: number;
  /** Of the clock that files have; not after it began. */
  readonly startedMs = Date.now() - 1_000;
  readonly #child: Deno.ChildProcess;
  readonly #lingerLimitMs: number;
  readonly #over: Promise<Deno.CommandStatus>;
  #stdout = "";
  #stderr = "";
  #lastOutputMs = performance.now();
  #isOver = false;

  constructor(args: readonly string[], options: ProgramOptions = {}) {
    this.#lingerLimitMs = options.lingerLimitMs ?? 30_000;
    this.directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "llumnix-e2e-" }));
    const started = options.command ?? programCommand();
    const [command, ...leading] = [...options.launcher ?? [], ...started];
    this.#child = new Deno.Command(command, {
      args: [...leading, ...options.command || options.defaultModel ? args : withTinyModel(args)],
      cwd: this.directory,
      clearEnv: true,
      env: {
        CUDA_VISIBLE_DEVICES: "", // `--device auto` is the CPU, also on hosts with a GPU
        ...(fromSource && !options.command ? sourceEnvironment() : {}),
        ...options.env,
      },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.pid = this.#child.pid;
    const ends = [
      this.#child.status,
      this.#pump(this.#child.stdout, (text) => this.#stdout += text),
      this.#pump(this.#child.stderr, (text) => this.#stderr += text),
    ] as const;
    this.#over = Promise.all(ends).then(([status]) => status).finally(() => this.#isOver = true);
  }

  /** What it has written so far. */
  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  signal(signal: Deno.Signal): void {
    signalIfThere(this.pid, signal);
  }

  /** Waits until it has ended and its output, which children may share, is complete. */
  async end(): Promise<Deno.CommandStatus> {
    await this.waitUntil("its end", () => this.#isOver);
    return await this.#over;
  }

  /** Asks it to stop and waits until it has. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<Deno.CommandStatus> {
    if (!this.#isOver) this.signal(signal);
    return await this.end();
  }

  /** Asks it to stop and waits until it has, without an error. */
  async stopWell(signal: Deno.Signal = "SIGTERM"): Promise<void> {
    const { code, signal: killedBy } = await this.stop(signal);
    if (code !== 0) this.#fail(`ended with ${killedBy ?? `code ${code}`} after ${signal}`);
  }

  /** Its process and all that came from it, as long as they stay in its directory; on Linux. */
  processes(): ProcessEntry[] {
    return processesIn(this.directory);
  }

  /**
   * Waits for a condition; fails when the program ends before, or is silent for too long.
   * @param what completes "was silent for two minutes before ..."
   */
  async waitUntil(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
    const started = performance.now();
    while (!await condition()) {
      if (this.#isOver) {
        const { code, signal } = await this.#over;
        if (await condition()) return;
        this.#fail(`ended with ${signal ?? `code ${code}`} before ${what}`);
      }
      if (performance.now() - Math.max(started, this.#lastOutputMs) > silenceLimitMs) {
        this.#fail(`was silent for ${silenceLimitMs} ms before ${what}`);
      }
      await new Promise((resolve) => setTimeout(resolve, pollIntervalMs));
    }
  }

  /** Waits until stderr matches. */
  async waitForLog(pattern: RegExp): Promise<void> {
    await this.waitUntil(`stderr had ${pattern}`, () => pattern.test(this.#stderr));
  }

  /**
   * Ends it if need be, and removes its directory.
   * @throws {AssertionError} a process of it was still there some time after its end
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOver) this.signal("SIGKILL");
    const remaining = await this.#remainingProcesses();
    for (const { pid } of remaining) signalIfThere(pid, "SIGKILL");
    await this.#over;
    await Deno.remove(this.directory, { recursive: true });
    if (remaining.length > 0) {
      const list = remaining.map(({ pid, command }) => `  ${pid} ${command}`).join("\n");
      this.#fail(`left processes behind:\n${list}`);
    }
  }

  /** Children notice the end of their parent a little later. */
  async #remainingProcesses(): Promise<ProcessEntry[]> {
    const started = performance.now();
    let remaining = this.processes();
    while (remaining.length > 0 && performance.now() - started < this.#lingerLimitMs) {
      await new Promise((resolve) => setTimeout(resolve, pollIntervalMs));
      remaining = this.processes();
    }
    return remaining;
  }

  async #pump(stream: ReadableStream<Uint8Array<ArrayBuffer>>, take: (text: string) => void) {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      take(text);
      this.#lastOutputMs = performance.now();
    }
  }

  #fail(what: string): never {
    const output = (this.#stdout + this.#stderr).split("\n").slice(-40).join("\n");
    assert.fail(`the program ${what}; its last output:\n${output}`);
  }
}

/** Runs the program to its end. */
export async function runProgram(
  args: readonly string[],
  options?: ProgramOptions,
): Promise<{ code: number; stdout: string; stderr: string }> {
  await using program = new Program(args, options);
  const { code } = await program.end();
  return { code, stdout: program.stdout, stderr: program.stderr };
}

/** A program that serves HTTP. */
export interface Server extends AsyncDisposable {
  readonly program: Program;
  /** "http://127.0.0.1:PORT" */
  readonly url: string;
}

/** Starts `serve` on a free port and waits until all instances are ready. */
export async function startServer(
  args: readonly string[] = [],
  options?: ProgramOptions,
): Promise<Server> {
  const port = freePort();
  const url = `http://127.0.0.1:${port}`;
  const program = new Program(
    ["serve", "--host", "127.0.0.1", "--port", String(port), ...args],
    options,
  );
  try {
    await program.waitUntil("it was ready", () => isReady(url));
  } catch (error) {
    // The reason is in the log; what the disposal finds is its consequence.
    await program[Symbol.asyncDispose]().catch(() => {});
    throw error;
  }
  return { program, url, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
}

async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/is_ready`);
    return await response.text() === "true";
  } catch {
    return false;
  }
}

/**
 * Adds `--model llumnix-tiny` where arguments of a role name no model and no device: a token of it is
 * a byte, and its outputs hardly ever end by themselves.
 */
function withTinyModel(args: readonly string[]): readonly string[] {
  const isRole = ["serve", "manager", "instance", "api-server", "agent"].includes(args[0]);
  if (!isRole || args.some((word) => /^--(model|device|help)\b/.test(word))) return args;
  return [args[0], "--model", "llumnix-tiny", ...args.slice(1)];
}

function programCommand(): readonly string[] {
  if (fromSource) {
    return [
      Deno.execPath(),
      "run",
      "-A",
      "--config",
      join(root, "deno.json"),
      join(root, "mod.ts"),
    ];
  }
  assert.ok(
    existsFile(executablePath),
    "dist/llumnix is not there: run `deno task build`, or set LLUMNIX_E2E_SOURCE=1",
  );
  return [executablePath];
}

/** `deno run` finds its package cache by these. */
function sourceEnvironment(): Record<string, string> {
  const { HOME, XDG_CACHE_HOME, DENO_DIR } = Deno.env.toObject();
  // By itself Deno looks below XDG_CACHE_HOME, which a test may give.
  const directory = DENO_DIR ?? `${XDG_CACHE_HOME ?? `${HOME}/.cache`}/deno`;
  return { HOME, DENO_DIR: directory, ...(XDG_CACHE_HOME && { XDG_CACHE_HOME }) };
}

function existsFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Signals a process, unless it has ended. */
export function signalIfThere(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
