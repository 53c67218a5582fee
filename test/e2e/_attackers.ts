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
/** Clients that stop reading come in a crowd, from one address. */
export const CROWD = 200;
/** How long each of them keeps its connection. */
const HOLD_MS = 2_000;
/** Requests that each of them sends at once where an answer is short. */
const PIPELINED = 200;

interface Attack {
  readonly path: string;
  /** Absent: a GET. */
  readonly body?: () => string;
  /** The client does not wait for the answer. */
  readonly leaves?: true;
  /** Requests that a client of a crowd sends, of whose answers it reads nothing. */
  readonly unread?: number;
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
  "readers of a stream that stop": {
    path: completions,
    body: () => `{"prompt":"a","max_tokens":3000,"ignore_eos":true,"stream":true,"logprobs":5}`,
    unread: 1,
  },
  "readers of /metrics that stop": { path: "/metrics", unread: PIPELINED },
  "readers of the page's feed that stop": { path: "/page/feed", unread: 1 },
};

export const attackNames: readonly string[] = Object.keys(attacks);

/** Whether one client of the attack is a crowd of {@linkcode CROWD} connections. */
export function isCrowd(name: string): boolean {
  return attacks[name].unread !== undefined;
}

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
  { path, leaves, unread }: Attack,
  body: Uint8Array<ArrayBuffer>,
): Promise<number> {
  if (unread !== undefined) return await stopReading(url, path, body, unread);
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

/** Opens the connections of a crowd, sends the same on each, and leaves after a while. */
async function stopReading(
  url: string,
  path: string,
  body: Uint8Array<ArrayBuffer>,
  numRequests: number,
): Promise<number> {
  const { hostname, port } = new URL(url);
  const head = body.length === 0
    ? `GET ${path} HTTP/1.1\r\nHost: ${hostname}\r\n\r\n`
    : `POST ${path} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n`;
  const request = head + new TextDecoder().decode(body);
  const sent = new TextEncoder().encode(request.repeat(numRequests));
  const connections = await Promise.all(
    Array.from({ length: CROWD }, () => Deno.connect({ hostname, port: Number(port) })),
  );
  // The server may take no more requests of a client that reads no answers.
  const writing = connections.map((connection) => writeAll(connection, sent).catch(() => {}));
  await new Promise((resolve) => setTimeout(resolve, HOLD_MS));
  for (const connection of connections) connection.close();
  await Promise.all(writing);
  return LEFT;
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
}

interface WorkerScope {
  postMessage(message: AttackReport | "ready"): void;
  onmessage: (event: MessageEvent<AttackOrder>) => void;
}

if ("WorkerGlobalScope" in globalThis) {
  const encoder = new TextEncoder();
  const bodies = new Map(
    Object.entries(attacks).map(([name, { body }]) => [name, encoder.encode(body?.() ?? "")]),
  );
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = async ({ data }) => scope.postMessage(await attack(bodies, data));
  scope.postMessage("ready");
}
