/** Clients of a service on several hosts: streams that are compared, and probes that measure pauses. */
import { eventData } from "../../test/e2e/streams.ts";
import { ADMIN_TOKEN } from "./service.ts";

/** Streams of each API server at a time. */
const STREAMS = 2;
/** Time between two streams of a client. */
const STREAM_PAUSE_MS = 200;
const STREAM_TOKENS = 250;
/** Distinct requests. */
const NUM_REQUESTS = 8;
const DISPATCH_INTERVAL_MS = 20;
const ADMIN_INTERVAL_MS = 50;
/** A request that takes longer counts as lost. */
export const REQUEST_LIMIT_MS = 90_000;
const MOST_REASONS = 5;

interface Body {
  readonly prompt: string;
  readonly max_tokens: number;
  readonly seed: number;
}

export const requests: readonly Body[] = Array.from({ length: NUM_REQUESTS }, (_, i) => ({
  prompt: `request ${i} `.repeat(1 + i),
  max_tokens: STREAM_TOKENS - 20 * i,
  seed: i,
}));

/** The token ids of a stream, in the order in which they came. */
export async function runStream(
  url: string,
  body: Body,
  { signal, onEvent }: { readonly signal?: AbortSignal; readonly onEvent?: () => void } = {},
): Promise<number[]> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      ...{ ...body, temperature: 1, stream: true, detokenize: false, ignore_eos: true },
    }),
    signal,
  });
  if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
  const tokens: number[] = [];
  let last = "", finish: string | null = null;
  for await (const event of eventData(response.body!)) {
    last = event;
    onEvent?.();
    if (event === "[DONE]") continue;
    const { choices, error } = JSON.parse(event);
    if (choices === undefined) throw new Error(`the server sent ${JSON.stringify(error)}`);
    tokens.push(...choices[0].token_ids ?? []);
    finish = choices[0].finish_reason;
  }
  if (last !== "[DONE]" || finish === null) throw new Error("the stream broke off");
  return tokens;
}

/** What became of the requests of a run. */
export interface Outcome {
  /** Streams that brought what they brought in the quiet run. */
  equal: number;
  /** Requests of the probes that were answered. */
  answered: number;
  /** Tokens that clients got. */
  tokens: number;
  /** Streams that brought something else. */
  different: number;
  /** Requests that failed or were not answered in time. */
  lost: number;
  readonly reasons: string[];
}

/** Streams and probes through one API server. */
export class Load {
  readonly outcome: Outcome = {
    ...{ equal: 0, answered: 0, tokens: 0, different: 0, lost: 0 },
    reasons: [],
  };
  /** When dispatches were answered, and reads by a leader. */
  readonly dispatches: number[] = [];
  readonly reads: number[] = [];
  /** Longest time between two events of a stream. */
  longestStreamPauseMs = 0;
  readonly #url: string;
  readonly #quiet: readonly (readonly number[])[];
  readonly #pending = new Set<Promise<void>>();
  readonly #timers: ReturnType<typeof setInterval>[] = [];
  #isStopped = false;
  #isAbandoned = false;
  #next = 0;

  /** @param quiet what {@linkcode requests} bring to a service that nothing happens to */
  constructor(url: string, quiet: readonly (readonly number[])[]) {
    this.#url = url;
    this.#quiet = quiet;
  }

  start(): void {
    for (let i = 0; i < STREAMS; i++) this.#track(this.#streams());
    this.#timers.push(setInterval(() => this.#track(this.#dispatch()), DISPATCH_INTERVAL_MS));
    this.#timers.push(setInterval(() => this.#track(this.#read()), ADMIN_INTERVAL_MS));
  }

  /** The clients are gone with their API server: what they get no more does not count. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#stopTimers();
  }

  /** Sends no more requests, and waits for the answers to those under way. */
  async stop(): Promise<void> {
    this.#stopTimers();
    if (!this.#isAbandoned) await Promise.all(this.#pending);
  }

  #stopTimers(): void {
    this.#isStopped = true;
    for (const timer of this.#timers) clearInterval(timer);
  }

  #track(work: Promise<void>): void {
    this.#pending.add(work);
    work.finally(() => this.#pending.delete(work));
  }

  async #streams(): Promise<void> {
    while (!this.#isStopped) {
      const index = this.#next++ % requests.length;
      let beforeMs = performance.now();
      const onEvent = () => {
        const nowMs = performance.now();
        this.longestStreamPauseMs = Math.max(this.longestStreamPauseMs, nowMs - beforeMs);
        beforeMs = nowMs;
      };
      try {
        const signal = AbortSignal.timeout(REQUEST_LIMIT_MS);
        const tokens = await runStream(this.#url, requests[index], { signal, onEvent });
        this.outcome.tokens += tokens.length;
        if (JSON.stringify(tokens) === JSON.stringify(this.#quiet[index])) this.outcome.equal++;
        else this.#fail("different", `stream ${index} differs from that of the quiet run`);
      } catch (error) {
        this.#fail("lost", `stream ${index}: ${(error as Error).message}`);
      }
      await new Promise((resolve) => setTimeout(resolve, STREAM_PAUSE_MS));
    }
  }

  async #dispatch(): Promise<void> {
    try {
      const response = await fetch(`${this.#url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "p", max_tokens: 1, seed: 1 }),
        signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
      });
      const text = await response.text();
      if (!response.ok) throw new Error(`status ${response.status}: ${text}`);
      this.dispatches.push(performance.now());
      this.outcome.answered++;
      this.outcome.tokens++;
    } catch (error) {
      this.#fail("lost", `probe: ${(error as Error).message}`);
    }
  }

  /** A read may be refused while no manager leads: it then counts as not answered. */
  async #read(): Promise<void> {
    try {
      const response = await fetch(`${this.#url}/admin/instances`, {
        headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
        signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
      });
      await response.body?.cancel();
      if (response.ok) this.reads.push(performance.now());
    } catch {
      // The API server is gone.
    }
  }

  #fail(what: "different" | "lost", reason: string): void {
    if (this.#isAbandoned) return;
    this.outcome[what]++;
    if (this.outcome.reasons.length < MOST_REASONS) this.outcome.reasons.push(reason);
  }
}

/** Longest time without an answer, as far as it is between two times. */
export function longestPauseMs(answers: readonly number[], fromMs: number, toMs: number): number {
  const within = answers.filter((atMs) => atMs > fromMs && atMs < toMs).toSorted((a, b) => a - b);
  let longest = 0, before = fromMs;
  for (const atMs of [...within, toMs]) {
    longest = Math.max(longest, atMs - before);
    before = atMs;
  }
  return longest;
}
