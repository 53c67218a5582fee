/**
 * Worker of attacks_test.ts: sends one body after the other, eight at once. It says `ready` once the bodies are
 * made, then takes an order.
 */
export interface AttackOrder {
  readonly url: string;
  readonly durationMs: number;
}

/** Answers by attack: how often each status came. */
export type AttackReport = Readonly<Record<string, Readonly<Record<number, number>>>>;

const AT_ONCE = 8;

const chat = "/v1/chat/completions";
const completions = "/v1/completions";

function array(count: number, element: string): string {
  return `[${Array(count).fill(element).join(",")}]`;
}

/** Bodies that held up a server for seconds, or ended it. All are below --max-body-bytes. */
const attacks: Readonly<Record<string, readonly [path: string, body: () => string]>> = {
  "stop strings": [
    completions,
    () => JSON.stringify({ prompt: "a", stop: Array(16).fill("s".repeat(240_000)) }),
  ],
  "longest stop strings": [
    completions,
    () => JSON.stringify({ prompt: "a", max_tokens: 64, stop: Array(16).fill("s".repeat(1024)) }),
  ],
  "empty prompts": [completions, () => `{"prompt":${array(1_300_000, "[]")}}`],
  "depth": [completions, () => "[".repeat(1_000_000)],
  "unknown keys": [
    chat,
    () => `{${Array.from({ length: 300_000 }, (_, i) => `"k${i}":1`).join(",")}}`,
  ],
  "chat messages": [
    chat,
    () => `{"messages":${array(100_000, '{"role":"user","content":"x"}')}}`,
  ],
  "as many chat messages as are allowed": [
    chat,
    () => `{"messages":${array(4_000, '{"role":"user","content":"x"}')}}`,
  ],
  "token ids": [completions, () => `{"prompt":${array(1_900_000, "1")}}`],
  "as many token ids as are allowed": [completions, () => `{"prompt":${array(260_000, "1")}}`],
  "a word of 4 MB": [completions, () => JSON.stringify({ prompt: "a".repeat(4_000_000) })],
  "added tokens": [completions, () => JSON.stringify({ prompt: "<|eos|>x".repeat(500_000) })],
  "escapes": [completions, () => `{"prompt":"${"\\u0061".repeat(650_000)}"}`],
};

const bodies = Object.entries(attacks).map(([name, [path, body]]) => ({
  name,
  path,
  bytes: new TextEncoder().encode(body()),
}));

/** Sends every body at least once, and goes on until the time is over. */
async function attack({ url, durationMs }: AttackOrder): Promise<AttackReport> {
  const report: Record<string, Record<number, number>> = {};
  const endMs = performance.now() + durationMs;
  let sent = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (sent < bodies.length || performance.now() < endMs) {
      const { name, path, bytes } = bodies[sent++ % bodies.length];
      const headers = { "content-type": "application/json" };
      const response = await fetch(url + path, { method: "POST", headers, body: bytes });
      await response.text();
      const statuses = report[name] ??= {};
      statuses[response.status] = (statuses[response.status] ?? 0) + 1;
    }
  }));
  return report;
}

interface WorkerScope {
  postMessage(message: AttackReport | "ready"): void;
  onmessage: (event: MessageEvent<AttackOrder>) => void;
}

const scope = globalThis as unknown as WorkerScope;
scope.onmessage = async ({ data }) => scope.postMessage(await attack(data));
scope.postMessage("ready");
