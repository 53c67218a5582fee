/** For tests that replace running processes by other executables while clients use the service. */
import assert from "node:assert/strict";
import { executablePath, runProgram } from "./harness.ts";
import { runStream, type StreamRequest, type StreamResult } from "./streams.ts";

/** Between two short requests of a client: the processes that start need a share of the cores. */
const PAUSE_MS = 20;

/** Clients that keep a service busy until they are told to stop, and count what they saw. */
export class Load {
  readonly results: StreamResult[][];
  readonly failures: unknown[] = [];
  numRequests = 0;
  #isOver = false;
  readonly #clients: Promise<void>[];

  /** @param urls API servers, which get the streams in turn and short requests each */
  constructor(
    private readonly urls: readonly string[],
    private readonly streams: readonly StreamRequest[],
  ) {
    this.results = streams.map(() => []);
    this.#clients = [
      ...streams.map((_, i) => this.#repeat(() => this.#stream(i))),
      ...urls.flatMap((url) => [
        this.#repeat(() => this.#request(url, true)),
        this.#repeat(() => this.#request(url, false)),
      ]),
    ];
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#clients);
  }

  async #repeat(action: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      try {
        await action();
      } catch (error) {
        this.failures.push(error);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  async #stream(i: number): Promise<void> {
    this.results[i].push(await runStream(this.urls[i % this.urls.length], this.streams[i]));
  }

  /** @param keepsConnection as most clients do */
  async #request(url: string, keepsConnection: boolean): Promise<void> {
    using client = keepsConnection ? undefined : Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a short one", max_tokens: 4 }),
      client,
    });
    const text = await response.text();
    assert.equal(response.status, 200, text);
    this.numRequests++;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Runs `llumnix upgrade` for the processes that meet in a directory. */
export function upgrade(directory: string, ...args: string[]) {
  return runProgram(["upgrade", ...args], {
    command: [executablePath],
    env: { XDG_RUNTIME_DIR: directory },
  });
}

/** The pids of the successors that `llumnix upgrade` has told. */
export function successorsIn(stdout: string): number[] {
  return [...stdout.matchAll(/is replaced by process (\d+)/g)].map(([, pid]) => Number(pid));
}

export async function versionOf(url: string): Promise<string> {
  return (await (await fetch(`${url}/version`)).json()).version;
}
