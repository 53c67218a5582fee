/** One act of the demo: a server, the load, and the end of an instance in the middle of it. */
import { completions } from "../../bench/backends/openai.ts";
import type { LoadRequest } from "../../bench/load_request.ts";
import { type RequestRecord, runOpenLoop } from "../../bench/open_loop.ts";
import { Target } from "../../bench/target.ts";
import { realClock } from "../../core/clock.ts";
import { busiestMs, sampleText } from "./load.ts";
import type { FeedState, FeedSummary } from "../../server/feed/records.ts";

/** Requests that measure how fast this machine is, and how many tokens each gets. */
const PROBE_REQUESTS = 24;
const PROBE_TOKENS = 160;

export interface ActOptions {
  readonly baseUrl: URL;
  readonly adminToken: string;
  /** Of every request: the API key, if the server wants one. */
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface ActResult {
  readonly records: readonly RequestRecord[];
  /** Of the five minutes before the end of the act: all of it. */
  readonly summary: FeedSummary;
}

export interface ActEvents {
  readonly onKill: (instanceId: string, numRequests: number) => void;
  readonly onProgress: (numDone: number, numSent: number) => void;
}

/** Output tokens per second of the whole server while it is busy. */
export async function measureSpeed(options: ActOptions): Promise<number> {
  const requests = Array.from({ length: PROBE_REQUESTS }, (_, i): LoadRequest => ({
    prompt: `${i} little ducks went out one day.`,
    promptTokens: 32,
    outputTokens: PROBE_TOKENS,
    arrivalMs: 0,
    recordedMs: null,
    priority: "normal",
  }));
  const { records, startMs, endMs } = await send(options, requests, "probe-", () => {}, () => {});
  const tokens = records.reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  return tokens / (endMs - startMs) * 1000;
}

/** Characters of a token of text like the prompts. */
export async function measureTokens({ baseUrl, headers, signal }: ActOptions): Promise<number> {
  const prompt = sampleText();
  const response = await fetch(new URL("tokenize", baseUrl), {
    method: "POST",
    headers: { ...headers, "content-type": "application/json" },
    body: JSON.stringify({ prompt }),
    signal,
  });
  const { count } = await response.json() as { readonly count: number };
  return prompt.length / count;
}

/** Sends the load, and kills the busiest instance in the middle. */
export async function perform(
  options: ActOptions,
  requests: readonly LoadRequest[],
  { onKill, onProgress }: ActEvents,
): Promise<ActResult> {
  const cancelKill = realClock.after(busiestMs(requests), () => {
    killBusiest(options).then(({ id, requests }) => onKill(id, requests)).catch(() => {});
  });
  let numSent = 0, numDone = 0;
  try {
    const { records } = await send(
      options,
      requests,
      "demo-",
      () => onProgress(numDone, ++numSent),
      () => onProgress(++numDone, numSent),
    );
    return { records, summary: await summaryOf(options) };
  } finally {
    cancelKill();
  }
}

async function send(
  { baseUrl, headers, signal }: ActOptions,
  requests: readonly LoadRequest[],
  requestIdPrefix: string,
  onSent: () => void,
  onEnd: () => void,
) {
  const target = new Target({ baseUrl, headers, clock: realClock });
  const stop = () => target.close();
  signal.addEventListener("abort", stop);
  try {
    const settings = { model: null, ignoreEos: true, logprobs: null, extraBody: { seed: 1 } };
    const sender = target.sender(completions, completions.endpoint, settings, requestIdPrefix);
    return await runOpenLoop(requests, sender, { clock: realClock, signal, onSent, onEnd });
  } finally {
    signal.removeEventListener("abort", stop);
    target.close();
  }
}

interface Instance {
  readonly id: string;
  readonly state: string;
  readonly pid: number | null;
  /** Running and waiting. */
  readonly requests: number;
}

async function killBusiest(options: ActOptions): Promise<Instance> {
  const instances = (await instancesOf(options))
    .filter(({ state, pid }) => state === "serving" && pid !== null)
    .sort((a, b) => b.requests - a.requests);
  const [victim] = instances;
  Deno.kill(victim.pid!, "SIGKILL");
  return victim;
}

async function instancesOf({ baseUrl, adminToken }: ActOptions): Promise<Instance[]> {
  const response = await fetch(new URL("admin/instances", baseUrl), {
    headers: { authorization: `Bearer ${adminToken}` },
  });
  const { instances } = await response.json() as {
    readonly instances: readonly (Omit<Instance, "requests"> & {
      readonly running_requests: number | null;
      readonly waiting_requests: number | null;
    })[];
  };
  return instances.map(({ id, state, pid, running_requests, waiting_requests }) => ({
    ...{ id, state, pid },
    requests: (running_requests ?? 0) + (waiting_requests ?? 0),
  }));
}

/** What the page shows now: the first event of its feed. */
async function summaryOf({ baseUrl, headers, signal }: ActOptions): Promise<FeedSummary> {
  const response = await fetch(new URL("page/feed", baseUrl), { headers, signal });
  let text = "";
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const data = /^event: state\ndata: (.*)\n\n/m.exec(text)?.[1];
    if (data !== undefined) return (JSON.parse(data) as FeedState).summary;
  }
  throw new Error("the page's feed ended before it said anything");
}
