/** What the demo does with one of its services: measures it, sends the load, and kills an instance. */
import { completions } from "../../bench/backends/openai.ts";
import type { LoadRequest } from "../../bench/load_request.ts";
import { type RequestRecord, runOpenLoop } from "../../bench/open_loop.ts";
import { Target } from "../../bench/target.ts";
import { realClock, sleep } from "../../core/clock.ts";
import { busiestMs, sampleText } from "./load.ts";
import type { FeedState, FeedSummary } from "../../server/feed/records.ts";

const POLL_MS = 50;

/** A service of the demo. */
export interface ActOptions {
  readonly baseUrl: URL;
  readonly adminToken: string;
  /** Of every request: the API key, if the server wants one. */
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** What a service did with the load of a round. */
export interface ActResult {
  readonly records: readonly RequestRecord[];
  readonly migrations: number;
  readonly preemptions: number;
  readonly resumed: number;
  /** Of all its moves so far; null: there was none. */
  readonly worstDowntimeMs: number | null;
}

export interface ActEvents {
  readonly onKill: (instanceId: string, numRequests: number) => void;
  readonly onSent: () => void;
  readonly onEnd: () => void;
}

/**
 * Output tokens per second of the whole service while requests wait: until the last one gets its first token.
 * @param requests that come all at once, and are as many as make queues
 */
export async function measureSpeed(
  options: ActOptions,
  requests: readonly LoadRequest[],
): Promise<number> {
  const { records, startMs } = await send(options, requests, "probe-", () => {}, () => {});
  const done = records.filter(({ failure }) => failure === null);
  const fullMs = Math.max(...done.map(({ firstMs }) => firstMs));
  const tokens = done.reduce(
    (sum, { outputTokens, firstMs, lastMs }) =>
      // Tokens come at about equal distances.
      sum + outputTokens * (lastMs <= fullMs ? 1 : (fullMs - firstMs) / (lastMs - firstMs)),
    0,
  );
  return tokens / (fullMs - startMs) * 1000;
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

/** Resolves when this many instances serve: a killed one is replaced. */
export async function untilServing(options: ActOptions, numInstances: number): Promise<void> {
  for (;;) {
    const instances = await instancesOf(options);
    if (instances.filter(({ state }) => state === "serving").length >= numInstances) return;
    await sleep(realClock, POLL_MS);
    options.signal.throwIfAborted();
  }
}

/** Sends the load, and kills the busiest instance in the middle. */
export async function perform(
  options: ActOptions,
  requests: readonly LoadRequest[],
  { onKill, onSent, onEnd }: ActEvents,
): Promise<ActResult> {
  const before = await summaryOf(options);
  const cancelKill = realClock.after(busiestMs(requests), () => {
    killBusiest(options).then(({ id, requests }) => onKill(id, requests)).catch(() => {});
  });
  try {
    const { records } = await send(options, requests, "demo-", onSent, onEnd);
    const { migrations, preemptions, resumed, worstDowntimeMs } = await summaryOf(options);
    return {
      records,
      migrations: migrations - before.migrations,
      preemptions: preemptions - before.preemptions,
      resumed: resumed - before.resumed,
      worstDowntimeMs,
    };
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

async function instancesOf({ baseUrl, adminToken, signal }: ActOptions): Promise<Instance[]> {
  const response = await fetch(new URL("admin/instances", baseUrl), {
    headers: { authorization: `Bearer ${adminToken}` },
    signal,
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

/** What the page shows now, of the last five minutes: the first event of its feed. */
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
