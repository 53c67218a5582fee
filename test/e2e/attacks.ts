/** Clients that send requests that are made to hurt, and what another client notices of them. */
import assert from "node:assert/strict";
import type { AttackOrder, AttackReport } from "./_attackers.ts";
import { AskedWorker } from "./asked_worker.ts";
import { eventData } from "./streams.ts";

/** What an honest client saw while something else went on. */
export interface Observation {
  /** Longest answer of /health. */
  readonly healthMs: number;
  /** Longest time between two events of a stream. */
  readonly gapMs: number;
  /** Most resident memory of all processes together. */
  readonly memoryBytes: number;
}

/** Starts the clients that attack. */
export function startAttackers(): AskedWorker<AttackOrder, AttackReport> {
  return new AskedWorker(new URL("_attackers.ts", import.meta.url));
}

/**
 * Watches /health, one stream and the memory of all processes until a promise settles.
 * @param processes of the service
 */
export async function observe(
  url: string,
  processes: () => readonly { readonly pid: number }[],
  until: Promise<unknown>,
): Promise<Observation> {
  let isOver = false;
  let healthMs = 0, gapMs = 0, memoryBytes = 0;
  const end = () => {
    isOver = true;
  };
  until.then(end, end);
  const health = async () => {
    while (!isOver) {
      const startedMs = performance.now();
      await (await fetch(`${url}/health`)).body?.cancel();
      healthMs = Math.max(healthMs, performance.now() - startedMs);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const letters = await lettersOf(url);
  const stream = async () => {
    while (!isOver) {
      const body = {
        ...{ prompt: "hello", max_tokens: 2000, ignore_eos: true, stream: true },
        allowed_token_ids: letters,
      };
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

function residentOf({ pid }: { readonly pid: number }): number {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Tokens that are text of their own. A token without one, such as a part of a letter, brings no event. */
async function lettersOf(url: string): Promise<number[]> {
  const body = JSON.stringify({ prompt: "h e l l o", add_special_tokens: false });
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${url}/tokenize`, { method: "POST", headers, body });
  return (await response.json()).tokens;
}
