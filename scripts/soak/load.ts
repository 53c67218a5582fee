/** The clients of a soak: what they send, and what they make of the answers. */
import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import {
  runStream,
  type StreamRequest,
  type StreamResult,
  variedRequests,
} from "../../test/e2e/streams.ts";

const LONG_PROMPT_CHARACTERS = 3_000;
const STREAM_TOKENS = 250;
const BURST = 24;
/** Failures whose reasons are kept. */
const MOST_REASONS = 20;

/** Streams that are sent again and again: each has to bring what it brought to a quiet service. */
export const pooledRequests: readonly StreamRequest[] = [
  ...variedRequests(12, STREAM_TOKENS),
  ...variedRequests(4, 60).map((request, i): StreamRequest => ({
    ...request,
    body: { ...request.body, prompt: words(LONG_PROMPT_CHARACTERS, new Random(i)) },
  })),
];

/** Requests that are refused, and with which status. */
const badRequests: readonly (readonly [path: string, status: number, body: string])[] = [
  ["/v1/completions", 400, "{"],
  ["/v1/completions", 400, "[".repeat(100_000)],
  ["/v1/completions", 400, JSON.stringify({ prompt: 7 })],
  ["/v1/completions", 400, JSON.stringify({ prompt: "a", max_tokens: -1 })],
  ["/v1/completions", 400, JSON.stringify({ prompt: "a", stop: Array(17).fill("b") })],
  ["/v1/completions", 400, JSON.stringify({ prompt: [1, 2, 1e9] })],
  // Long enough for the tokenizer's workers, and only then found to be too long for the model.
  ["/v1/completions", 400, JSON.stringify({ prompt: "too long ".repeat(4_000) })],
  ["/v1/completions", 413, JSON.stringify({ prompt: "x".repeat(5_000_000) })],
  ["/v1/completions", 404, JSON.stringify({ model: "another", prompt: "a" })],
  ["/v1/chat/completions", 400, JSON.stringify({ messages: [{ role: "user" }] })],
  ["/v1/chat/completions", 400, JSON.stringify({ messages: "hello" })],
  ["/generate", 400, JSON.stringify({ prompt: "a", n: 0 })],
  ["/v1/nothing", 404, "{}"],
];

export interface Counts {
  /** Streams that ended and were compared. */
  streams: number;
  bursts: number;
  /** Requests with a prompt that no other request had. */
  unique: number;
  /** Clients that left before the end. */
  left: number;
  /** Bad requests that were refused. */
  refused: number;
  /** Requests that failed, were lost, or brought something else. */
  lost: number;
}

/** Runs clients of every kind against a service until it is stopped. */
export class Load {
  readonly counts: Counts = { streams: 0, bursts: 0, unique: 0, left: 0, refused: 0, lost: 0 };
  /** What the first failures were. */
  readonly reasons: string[] = [];
  readonly #url: string;
  readonly #quiet: readonly StreamResult[];
  readonly #seed: number;
  #isOver = false;
  #endPause = Promise.withResolvers<void>();

  /** @param quiet what {@linkcode pooledRequests} bring to a service that nothing happens to */
  constructor(url: string, quiet: readonly StreamResult[], seed: number) {
    this.#url = url;
    this.#quiet = quiet;
    this.#seed = seed;
  }

  /** Starts all clients; settles when they have ended. */
  async run(): Promise<void> {
    const steady = Array.from({ length: 3 }, () => this.#client(400, this.#stream));
    await Promise.all([
      ...steady,
      this.#client(15_000, this.#burst),
      this.#client(500, this.#unique),
      this.#client(2_000, this.#leave),
      this.#client(1_000, this.#beRefused),
    ]);
  }

  /** No client sends another request. */
  stop(): void {
    this.#isOver = true;
    this.#endPause.resolve();
  }

  #numClients = 0;

  /** One that does something again and again, with pauses of a mean length between. */
  async #client(meanPauseMs: number, act: (random: Random) => Promise<void>): Promise<void> {
    const random = new Random(1_000 * this.#seed + this.#numClients++);
    while (!this.#isOver) {
      await act.call(this, random);
      await this.#pause(random.exponential() * meanPauseMs);
    }
  }

  async #pause(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const time = new Promise<void>((resolve) => timer = setTimeout(resolve, ms));
    await Promise.race([time, this.#endPause.promise]);
    clearTimeout(timer);
  }

  async #attempt(what: string, attempt: () => Promise<void>): Promise<void> {
    try {
      await attempt();
    } catch (error) {
      this.counts.lost++;
      const { message } = error as Error;
      if (this.reasons.length < MOST_REASONS) {
        this.reasons.push(`${new Date().toISOString()} ${what}: ${message.slice(0, 500)}`);
      }
    }
  }

  async #stream(random: Random): Promise<void> {
    const index = random.below(pooledRequests.length);
    await this.#attempt(`stream ${index}`, async () => {
      const stream = await runStream(this.#url, pooledRequests[index]);
      assert.deepEqual(stream, this.#quiet[index], "it differs from that of the quiet run");
      this.counts.streams++;
    });
  }

  async #burst(random: Random): Promise<void> {
    this.counts.bursts++;
    await Promise.all(Array.from({ length: BURST }, () => this.#stream(random)));
  }

  async #unique(random: Random): Promise<void> {
    const maxTokens = 1 + random.below(40);
    await this.#attempt("unique prompt", async () => {
      const content = words(1 + random.below(LONG_PROMPT_CHARACTERS), random);
      const body = { messages: [{ role: "user", content }], max_tokens: maxTokens };
      const response = await this.#post(
        "/v1/chat/completions",
        JSON.stringify({ ...body, ignore_eos: true }),
      );
      const text = await response.text();
      assert.equal(response.status, 200, text);
      assert.equal(JSON.parse(text).usage.completion_tokens, maxTokens);
      this.counts.unique++;
    });
  }

  /** A client leaves in the middle of a stream, sometimes before its first event. */
  async #leave(random: Random): Promise<void> {
    const request = pooledRequests[random.below(pooledRequests.length)];
    const client = new AbortController();
    let patience = random.below(50);
    const stream = runStream(this.#url, request, {
      signal: client.signal,
      onEvent: () => patience-- === 0 && client.abort(),
    });
    if (patience === 0) client.abort();
    await stream.catch(() => {}); // some end before the client's patience does
    this.counts.left++;
  }

  async #beRefused(random: Random): Promise<void> {
    const [path, status, body] = badRequests[random.below(badRequests.length)];
    await this.#attempt(`bad request to ${path}`, async () => {
      const response = await this.#post(path, body);
      const text = await response.text();
      assert.equal(response.status, status, `${body.slice(0, 80)}: ${text.slice(0, 200)}`);
      this.counts.refused++;
    });
  }

  #post(path: string, body: string): Promise<Response> {
    const headers = { "content-type": "application/json" };
    return fetch(this.#url + path, { method: "POST", headers, body });
  }
}

function words(characters: number, random: Random): string {
  let text = "";
  while (text.length < characters) text += `${random.uint32().toString(36)} `;
  return text.slice(0, characters);
}
