/** A prompt that takes minutes, and a client that leaves while it is computed. */
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { makeModel, parseMakeModelArgs } from "../../scripts/make_model.ts";
import { type Observation, observe } from "./attacks.ts";
import { type Server, startServer } from "./harness.ts";

export const LONG_PROMPT_TOKENS = 220_000;
const MAX_LENGTH = 262_144;
/** The CPU counts as idle if it was busy for less of this time. */
const IDLE_WINDOW_MS = 500;
const IDLE_SHARE = 0.1;
/** Until when the client's request has arrived and its prefill has begun, on a busy machine too. */
const BEGIN_LIMIT_MS = 60_000;
const POLL_MS = 50;
/** Ticks of the clock that /proc/PID/stat counts in (USER_HZ). */
const TICKS_PER_SECOND = 100;

/** Starts a server of a tiny model that takes prompts of {@linkcode LONG_PROMPT_TOKENS}. */
export async function startLongServer(): Promise<Server> {
  const directory = Deno.makeTempDirSync({ prefix: "llumnix-long-" });
  makeModel(parseMakeModelArgs(["--out", directory, "--max-positions", String(MAX_LENGTH)]));
  const blocks = String(Math.ceil(MAX_LENGTH / 16) + 200);
  const remove = () => Deno.removeSync(directory, { recursive: true });
  try {
    const server = await startServer([
      ...["--model", directory, "--num-gpu-blocks-override", blocks, "--swap-space", "0"],
      "--disable-log-requests",
    ]);
    return {
      ...server,
      async [Symbol.asyncDispose]() {
        await Promise.resolve(server[Symbol.asyncDispose]()).finally(remove);
      },
    };
  } catch (error) {
    remove();
    throw error;
  }
}

export interface AbandonedPrompt {
  /** What another client noticed between the prompt's arrival and the client's leaving. */
  readonly attacked: Observation;
  /** Tokens of the prompt that were computed, when the processes were idle again. */
  readonly computedTokens: number;
  /** From the client's leaving until nothing computes any more. */
  readonly idleAfterMs: number;
}

/**
 * Sends a prompt of {@linkcode LONG_PROMPT_TOKENS}, leaves some time after its prefill has begun, and waits
 * until no process computes any more.
 */
export async function abandonLongPrompt(
  { url, program }: Server,
  prefillMs: number,
): Promise<AbandonedPrompt> {
  const processes = () => program.processes();
  const before = await promptTokens(url);
  const leaving = new AbortController();
  const body = `{"prompt":[${Array(LONG_PROMPT_TOKENS).fill("1").join(",")}],"max_tokens":90}`;
  const left = (async () => {
    const asked = fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
      signal: leaving.signal,
    }).then(() => assert.fail("the prompt was computed too soon"), () => {});
    const untilMs = performance.now() + BEGIN_LIMIT_MS;
    while (await promptTokens(url) < before + 1_000 && performance.now() < untilMs) {
      await pause(POLL_MS);
    }
    await pause(prefillMs);
    leaving.abort();
    await asked;
    return performance.now();
  })();
  const attacked = await observe(url, processes, left);
  const leftMs = await left;
  await program.waitUntil("its CPUs were idle", () => isIdle(processes));
  const idleAfterMs = performance.now() - leftMs - IDLE_WINDOW_MS;
  return { attacked, computedTokens: await promptTokens(url) - before, idleAfterMs };
}

/** Tokens of prompts that all instances together have computed. */
async function promptTokens(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.match(/^llumnix:instance_prompt_tokens_total\b.*/gm) ?? [];
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

async function isIdle(processes: () => readonly { readonly pid: number }[]): Promise<boolean> {
  const busyMs = () =>
    processes().reduce((sum, { pid }) => sum + cpuTicks(pid), 0) / TICKS_PER_SECOND * 1000;
  const beforeMs = busyMs();
  await pause(IDLE_WINDOW_MS);
  return busyMs() - beforeMs < IDLE_SHARE * IDLE_WINDOW_MS;
}

/** Of user and kernel. */
function cpuTicks(pid: number): number {
  try {
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1].split(" ");
    return Number(fields[11]) + Number(fields[12]);
  } catch {
    return 0; // it has ended
  }
}
