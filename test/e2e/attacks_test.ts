/** Requests that are made to hurt, all at once: others must not notice, and memory stays bounded. */
import assert from "node:assert/strict";
import type { AttackOrder, AttackReport } from "./_attackers.ts";
import { startServer } from "./harness.ts";
import { eventData } from "./streams.ts";

const QUIET_MS = 3_000;
const ATTACK_MS = 8_000;
/** Beyond what the quiet run shows, which has the time of a step and this machine's noise in it. */
const MOST_DELAY_MS = 250;
const MOST_MEMORY_BYTES = 1e9;
/** Other processes of the machine can only make it slower, so the best of these counts. */
const MOST_ROUNDS = 4;

interface Observation {
  readonly healthMs: number;
  readonly gapMs: number;
  readonly memoryBytes: number;
}

/** Watches /health, one stream and the memory of all processes until a promise settles. */
async function observe(
  url: string,
  processes: () => readonly { pid: number }[],
  until: Promise<unknown>,
): Promise<Observation> {
  let isOver = false;
  let healthMs = 0, gapMs = 0, memoryBytes = 0;
  until.finally(() => isOver = true);
  const health = async () => {
    while (!isOver) {
      const startedMs = performance.now();
      await (await fetch(`${url}/health`)).body?.cancel();
      healthMs = Math.max(healthMs, performance.now() - startedMs);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const stream = async () => {
    while (!isOver) {
      const body = { prompt: "hello", max_tokens: 2000, ignore_eos: true, stream: true };
      const response = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      assert.equal(response.status, 200);
      let lastMs: number | null = null;
      for await (const _ of eventData(response.body!)) {
        const nowMs = performance.now();
        if (lastMs !== null) gapMs = Math.max(gapMs, nowMs - lastMs);
        lastMs = nowMs;
        if (isOver) break;
      }
    }
  };
  const memory = async () => {
    while (!isOver) {
      memoryBytes = Math.max(memoryBytes, processes().reduce((sum, it) => sum + residentOf(it), 0));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  await Promise.all([until, health(), stream(), memory()]);
  return { healthMs, gapMs, memoryBytes };
}

function residentOf({ pid }: { pid: number }): number {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** The clients that attack, in a thread of their own. */
class Attackers implements Disposable {
  readonly #worker = new Worker(new URL("_attackers.ts", import.meta.url), { type: "module" });

  /** Their bodies are made. */
  readonly ready = this.#next();

  attack(order: AttackOrder): Promise<AttackReport> {
    this.#worker.postMessage(order);
    return this.#next() as Promise<AttackReport>;
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }

  #next(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => resolve(data);
      this.#worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
    });
  }
}

function isWithin(attacked: Observation, quiet: Observation): boolean {
  return attacked.healthMs < quiet.healthMs + MOST_DELAY_MS &&
    attacked.gapMs < quiet.gapMs + MOST_DELAY_MS;
}

Deno.test({
  name: "requests that are made to hurt delay no other, and get an answer",
  ignore: Deno.build.os !== "linux",
  async fn() {
    using attackers = new Attackers();
    await attackers.ready;
    await using server = await startServer(["--disable-log-requests"]);
    const processes = () => server.program.processes();
    const { url } = server;
    const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    const quiet = await observe(url, processes, pause(QUIET_MS));
    const rounds: Observation[] = [];
    do {
      const report = attackers.attack({ url, durationMs: ATTACK_MS });
      const attacked = await observe(url, processes, report);
      rounds.push(attacked);
      for (const [name, statuses] of Object.entries(await report)) {
        // 429 says that others are being served; anything from 500 on is a defect.
        const told = `${name}: ${JSON.stringify(statuses)}`;
        assert.ok(Object.keys(statuses).every((status) => Number(status) < 500), told);
      }
      const grownBytes = attacked.memoryBytes - quiet.memoryBytes;
      assert.ok(grownBytes < MOST_MEMORY_BYTES, `${grownBytes} bytes more than before`);
    } while (!isWithin(rounds.at(-1)!, quiet) && rounds.length < MOST_ROUNDS);
    if (Deno.env.get("LLUMNIX_SHOW")) console.log({ quiet, rounds });
    assert.ok(isWithin(rounds.at(-1)!, quiet), JSON.stringify({ quiet, rounds }));
    await server.program.stopWell();
  },
});
