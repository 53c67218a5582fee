/**
 * A worker with the clients of `attacks.ts`: each sends one body after the other. It says `ready` once the
 * bodies are made, then takes one order after the other.
 */
export interface AttackOrder {
  readonly url: string;
  readonly durationMs: number;
  /** How many clients send at once. */
  readonly clients: number;
  /** Names of the attacks, each of which is sent at least once; default: all. */
  readonly names?: readonly string[];
}

/** Answers by attack: how often each status came. */
export type AttackReport = Readonly<Record<string, Readonly<Record<number, number>>>>;

const chat = "/v1/chat/completions";
const completions = "/v1/completions";
/** A client that leaves does so after this time: in the middle of the prefill. */
const LEAVE_MS = 30;
/** What stands for the status where the client did not wait for it. */
const LEFT = 0;

interface Attack {
  readonly path: string;
  readonly body: () => string;
  /** The client does not wait for the answer. */
  readonly leaves?: true;
}

function array(count: number, element: string): string {
  return `[${Array(count).fill(element).join(",")}]`;
}

/** Bodies that held up a server for seconds, or ended it. All are below --max-body-bytes. */
const attacks: Readonly<Record<string, Attack>> = {
  "stop strings": {
    path: completions,
    body: () => JSON.stringify({ prompt: "a", stop: Array(16).fill("s".repeat(240_000)) }),
  },
  "longest stop strings": {
    path: completions,
    body: () =>
      JSON.stringify({ prompt: "a", max_tokens: 64, stop: Array(16).fill("s".repeat(1024)) }),
  },
  "empty prompts": { path: completions, body: () => `{"prompt":${array(1_300_000, "[]")}}` },
  "depth": { path: completions, body: () => "[".repeat(1_000_000) },
  "unknown keys": {
    path: chat,
    body: () => `{${Array.from({ length: 300_000 }, (_, i) => `"k${i}":1`).join(",")}}`,
  },
  "chat messages": {
    path: chat,
    body: () => `{"messages":${array(100_000, '{"role":"user","content":"x"}')}}`,
  },
  "as many chat messages as are allowed": {
    path: chat,
    body: () => `{"messages":${array(4_000, '{"role":"user","content":"x"}')}}`,
  },
  "token ids": { path: completions, body: () => `{"prompt":${array(1_900_000, "1")}}` },
  "as many token ids as are allowed": {
    path: completions,
    body: () => `{"prompt":${array(260_000, "1")}}`,
  },
  "a word of 4 MB": {
    path: completions,
    body: () => JSON.stringify({ prompt: "a".repeat(4_000_000) }),
  },
  "added tokens": {
    path: completions,
    body: () => JSON.stringify({ prompt: "<|eos|>x".repeat(500_000) }),
  },
  "escapes": { path: completions, body: () => `{"prompt":"${"\\u0061".repeat(650_000)}"}` },
  "a prompt that fills the model, and the client leaves": {
    path: completions,
    body: () => `{"prompt":${array(4_000, "1")},"max_tokens":90}`,
    leaves: true,
  },
};

export const attackNames: readonly string[] = Object.keys(attacks);

/** Sends every body at least once, and goes on until the time is over. */
async function attack(
  bodies: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  { url, durationMs, clients, names = attackNames }: AttackOrder,
): Promise<AttackReport> {
  const report: Record<string, Record<number, number>> = {};
  const endMs = performance.now() + durationMs;
  let sent = 0;
  await Promise.all(Array.from({ length: clients }, async () => {
    while (sent < names.length || performance.now() < endMs) {
      const name = names[sent++ % names.length];
      const status = await send(url, attacks[name], bodies.get(name)!);
      const statuses = report[name] ??= {};
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
  }));
  return report;
}

async function send(
  url: string,
  { path, leaves }: Attack,
  body: Uint8Array<ArrayBuffer>,
): Promise<number> {
  const signal = leaves ? AbortSignal.timeout(LEAVE_MS) : undefined;
  const headers = { "content-type": "application/json" };
  try {
    const response = await fetch(url + path, { method: "POST", headers, body, signal });
    await response.text();
    return response.status;
  } catch (error) {
    if (signal?.aborted) return LEFT;
    throw error;
  }
}

interface WorkerScope {
  postMessage(message: AttackReport | "ready"): void;
  onmessage: (event: MessageEvent<AttackOrder>) => void;
}

if ("WorkerGlobalScope" in globalThis) {
  const encoder = new TextEncoder();
  const bodies = new Map(
    Object.entries(attacks).map(([name, { body }]) => [name, encoder.encode(body())]),
  );
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = async ({ data }) => scope.postMessage(await attack(bodies, data));
  scope.postMessage("ready");
}
