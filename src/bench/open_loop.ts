/** An open-loop load: requests are sent at their times, however long earlier answers take. */
import { type Clock, sleep } from "../core/clock.ts";

/** What a server says about an answer when it has ended. */
export interface AnswerFacts {
  /** Tokens of the prompt, as the server counts them. */
  readonly promptTokens?: number;
  /** Tokens of the output, as the server counts them; several may arrive together. */
  readonly outputTokens?: number;
  readonly text?: string;
}

/** @param atMs when the tokens came, if that was not now */
export type OnTokens = (count: number, atMs?: number) => void;

/**
 * Sends one request; resolves when its answer is complete, rejects if it failed.
 * @param onTokens called with the number of tokens as they arrive
 * @param index of the request in the load
 */
export type Send<Request> = (
  request: Request,
  onTokens: OnTokens,
  index: number,
) => Promise<AnswerFacts | void>;

/** One request of a load. Times are milliseconds of the load's clock. */
export interface RequestRecord {
  /** When the request was planned to be sent. */
  readonly plannedMs: number;
  /** As `plannedMs`, but not before a place was free, if their number is limited. Latencies start here. */
  readonly dueMs: number;
  readonly sentMs: number;
  /** When the first and the last token came; NaN if none came. */
  readonly firstMs: number;
  readonly lastMs: number;
  /** Times between two tokens, in their order. */
  readonly gapsMs: readonly number[];
  /** When the answer was complete, or had failed. */
  readonly endMs: number;
  /** As the server counts the tokens; if it does not, as they arrived. */
  readonly outputTokens: number;
  /** Null if the server did not count. */
  readonly promptTokens: number | null;
  readonly text: string;
  /** Why the request failed; null if it did not. */
  readonly failure: string | null;
}

/** A load that has ended. */
export interface LoadResult {
  readonly startMs: number;
  readonly endMs: number;
  /** In the order of the requests; one that was never sent is not among them. */
  readonly records: readonly RequestRecord[];
}

export interface OpenLoopOptions {
  readonly clock: Clock;
  /** Most requests that run at once; later ones wait for a place. Infinity for an open loop. */
  readonly maxConcurrency?: number;
  /** Stops sending when it is aborted. What runs is not waited for longer than its `send` takes to end. */
  readonly signal?: AbortSignal;
  readonly onSent?: () => void;
  readonly onEnd?: (record: RequestRecord) => void;
}

/**
 * Sends every request at its time.
 * @param requests in order of arrival, in milliseconds from now
 */
export async function runOpenLoop<Request extends { readonly arrivalMs: number }>(
  requests: readonly Request[],
  send: Send<Request>,
  { clock, maxConcurrency = Infinity, signal, onSent, onEnd }: OpenLoopOptions,
): Promise<LoadResult> {
  const startMs = clock.nowMs();
  const records: RequestRecord[] = [];
  const answers: Promise<void>[] = [];
  const places = new Places(maxConcurrency);
  for (const [index, request] of requests.entries()) {
    const plannedMs = startMs + request.arrivalMs;
    const waitMs = plannedMs - clock.nowMs();
    if (waitMs > 0) await sleepUnlessAborted(clock, waitMs, signal);
    if (signal?.aborted) break;
    const free = places.take();
    if (free !== null) await free;
    if (signal?.aborted) break;
    onSent?.();
    const dueMs = free === null ? plannedMs : Math.max(plannedMs, places.freedMs);
    const answer = follow(
      { plannedMs, dueMs },
      (onTokens) => send(request, onTokens, index),
      clock,
    );
    answers.push(answer.then((record) => {
      places.giveBack(record.endMs);
      records[index] = record;
      onEnd?.(record);
    }));
  }
  await Promise.all(answers);
  return { startMs, endMs: clock.nowMs(), records: records.filter(() => true) };
}

/** Never rejects: a failure is part of the record. */
async function follow(
  planned: Pick<RequestRecord, "plannedMs" | "dueMs">,
  send: (onTokens: OnTokens) => Promise<AnswerFacts | void>,
  clock: Clock,
): Promise<RequestRecord> {
  const sentMs = clock.nowMs();
  const gapsMs: number[] = [];
  let firstMs = NaN, lastMs = NaN;
  const onTokens = (count: number, atMs = clock.nowMs()) => {
    if (count === 0) return;
    if (Number.isNaN(firstMs)) firstMs = atMs;
    else gapsMs.push(atMs - lastMs);
    // Of tokens that arrive together, the first gets the whole gap and the others get 0.
    for (let i = 1; i < count; i++) gapsMs.push(0);
    lastMs = atMs;
  };
  let facts: AnswerFacts = {};
  let failure: string | null = null;
  try {
    facts = await send(onTokens) ?? {};
    if (Number.isNaN(firstMs)) failure = "the answer had no tokens";
  } catch (error) {
    failure = (error as Error).message;
  }
  const received = Number.isNaN(firstMs) ? 0 : 1 + gapsMs.length;
  return {
    ...planned,
    ...{ sentMs, firstMs, lastMs, gapsMs, endMs: clock.nowMs(), failure },
    outputTokens: facts.outputTokens ?? received,
    promptTokens: facts.promptTokens ?? null,
    text: facts.text ?? "",
  };
}

/** The places of a load whose concurrency is limited. */
class Places {
  /** When the last place became free. */
  freedMs = -Infinity;
  #free: number;
  #wake: (() => void) | null = null;

  constructor(count: number) {
    this.#free = count;
  }

  /** Takes a place; null if there was one, or what to wait for. Only one caller waits at a time. */
  take(): Promise<void> | null {
    if (this.#free > 0) {
      this.#free--;
      return null;
    }
    return new Promise((resolve) => this.#wake = resolve);
  }

  giveBack(nowMs: number): void {
    this.freedMs = nowMs;
    const wake = this.#wake;
    this.#wake = null;
    if (wake === null) this.#free++;
    else wake();
  }
}

async function sleepUnlessAborted(
  clock: Clock,
  delayMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (signal === undefined) return await sleep(clock, delayMs);
  await new Promise<void>((resolve) => {
    const end = () => {
      cancel();
      signal.removeEventListener("abort", end);
      resolve();
    };
    const cancel = clock.after(delayMs, end);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
