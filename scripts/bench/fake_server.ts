/**
 * A server of known latencies, to check load generators with: each answer has its first token after `ttftMs` and
 * the others `tpotMs` apart. Timers are late on a busy machine, so the server also tells (`GET /truth`) when it
 * really wrote the tokens of each request.
 *
 *     deno run -A scripts/bench/fake_server.ts [PORT [TTFT_MS [TPOT_MS]]]
 */
import { Buffer } from "node:buffer";

export interface FakeLatencies {
  readonly ttftMs: number;
  readonly tpotMs: number;
}

/** When the tokens of a request were written, in milliseconds after the request had arrived. */
export interface Truth {
  readonly ttftMs: number;
  readonly e2eMs: number;
  readonly tokens: number;
}

const encode = (text: string) => new TextEncoder().encode(text);
const chunk = (text: string) => encode(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`);
const event = (body: unknown) => `data: ${JSON.stringify(body)}\n\n`;

const head = encode(
  "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
);
const common = {
  id: "cmpl-fake",
  object: "text_completion",
  created: 1_700_000_000,
  model: "fake",
};
const token = chunk(event({
  ...common,
  choices: [{ index: 0, text: " word", logprobs: null, finish_reason: null }],
}));

/** The end of an answer: usage, the last event, the end of the body. */
function ending(promptTokens: number, tokens: number): Uint8Array {
  const usage = {
    prompt_tokens: promptTokens,
    completion_tokens: tokens,
    total_tokens: promptTokens + tokens,
  };
  const events = event({ ...common, choices: [], usage }) + "data: [DONE]\n\n";
  return Buffer.concat([chunk(events), encode("0\r\n\r\n")]);
}

/** A stream that is being answered. */
interface Stream {
  readonly send: (bytes: Uint8Array) => void;
  readonly promptTokens: number;
  readonly tokens: number;
  readonly arrivedMs: number;
  written: number;
  firstMs: number;
}

export class FakeServer implements AsyncDisposable {
  readonly truths: Truth[] = [];
  readonly #latencies: FakeLatencies;
  readonly #listener: Deno.TcpListener;
  readonly #connections = new Set<Deno.TcpConn>();
  #serving: Promise<void>;

  /** @param port 0 for a free one */
  constructor(latencies: FakeLatencies, port = 0) {
    this.#latencies = latencies;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port, tcpBacklog: 4096 });
    this.#serving = this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#connections) connection.close();
    this.#connections.clear();
    await this.#serving;
  }

  async #accept(): Promise<void> {
    const answers: Promise<void>[] = [];
    for await (const connection of this.#listener) {
      connection.setNoDelay(true);
      this.#connections.add(connection);
      answers.push(this.#serve(connection));
    }
    await Promise.all(answers);
  }

  async #serve(connection: Deno.TcpConn): Promise<void> {
    const buffer = new Uint8Array(64 << 10);
    let text = "";
    try {
      for (;;) {
        const count = await connection.read(buffer);
        if (count === null) break;
        text += Buffer.from(buffer.buffer, 0, count).toString();
        const end = text.indexOf("\r\n\r\n");
        const length = Number(/content-length: *(\d+)/i.exec(text)?.[1] ?? 0);
        if (end < 0 || text.length < end + 4 + length) continue;
        const body = text.slice(end + 4, end + 4 + length);
        const [path] = /(?<= )\S+/.exec(text)!;
        text = "";
        await this.#answer(connection, path, body);
      }
    } catch {
      // The client has gone.
    }
    if (this.#connections.delete(connection)) connection.close();
  }

  async #answer(connection: Deno.TcpConn, path: string, body: string): Promise<void> {
    if (path === "/v1/completions") return await this.#stream(connection, JSON.parse(body));
    const answer = path === "/v1/models"
      ? { object: "list", data: [{ id: "fake", object: "model" }] }
      : path === "/truth"
      ? this.truths.splice(0)
      : path === "/tokenize"
      ? { count: JSON.parse(body).prompt.split(" ").length }
      : null;
    const text = JSON.stringify(answer);
    const status = answer === null ? "404 Not Found" : "200 OK";
    await writeAll(
      connection,
      encode(
        `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ` +
          `${Buffer.byteLength(text)}\r\n\r\n${text}`,
      ),
    );
  }

  #stream(
    connection: Deno.TcpConn,
    { prompt, max_tokens }: { prompt: string; max_tokens: number },
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      let sending = writeAll(connection, head);
      sending.catch(reject);
      const stream: Stream = {
        send: (bytes) => {
          sending = sending.then(() => writeAll(connection, bytes));
          sending.catch(reject);
        },
        promptTokens: prompt.split(" ").length,
        tokens: max_tokens,
        arrivedMs: performance.now(),
        written: 0,
        firstMs: 0,
      };
      const next = () => {
        const { ttftMs, tpotMs } = this.#latencies;
        const dueMs = stream.arrivedMs + ttftMs + stream.written * tpotMs;
        setTimeout(() => {
          stream.send(token);
          if (stream.written++ === 0) stream.firstMs = performance.now();
          if (stream.written < stream.tokens) return next();
          this.truths.push({
            ttftMs: stream.firstMs - stream.arrivedMs,
            e2eMs: performance.now() - stream.arrivedMs,
            tokens: stream.tokens,
          });
          stream.send(ending(stream.promptTokens, stream.tokens));
          sending.then(resolve, reject);
        }, Math.max(0, dueMs - performance.now()));
      };
      next();
    });
  }
}

async function writeAll(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
}

if (import.meta.main) {
  const [port = 18000, ttftMs = 200, tpotMs = 100] = Deno.args.map(Number);
  const server = new FakeServer({ ttftMs, tpotMs }, port);
  console.log(server.port);
}
