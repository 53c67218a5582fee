/** One run of a load against one server. */
import type { Clock } from "../core/clock.ts";
import { streamOf } from "../workload/generate.ts";
import type { Backend, RequestSettings } from "./backends/backend.ts";
import type { DatasetRequest, LoadRequest } from "./load_request.ts";
import { Observer, type Timeline } from "./observer.ts";
import { type RequestRecord, runOpenLoop } from "./open_loop.ts";
import { arrivalTimes, type Schedule } from "./schedule.ts";
import { type Goodput, summarize, type Summary } from "./summary.ts";
import type { Target } from "./target.ts";

/**
 * Gives the requests of a dataset their times and priorities.
 * @param highPriority fraction of high priority among the requests whose priority the dataset does not say
 * @throws {UsageError} the schedule needs times that the dataset has not
 */
export function loadOf(
  requests: readonly DatasetRequest[],
  schedule: Schedule,
  { seed, highPriority }: { readonly seed: number; readonly highPriority: number },
): LoadRequest[] {
  const times = requests.map(({ recordedMs }) => recordedMs);
  const recorded = times.every((time) => time !== null) ? times as number[] : null;
  const arrivals = arrivalTimes(schedule, requests.length, streamOf(seed, "arrivals"), recorded);
  const random = streamOf(seed, "priorities");
  return requests.map((request, i) => {
    const isHigh = random.uniform() < highPriority;
    return {
      ...request,
      arrivalMs: arrivals[i],
      priority: request.priority ?? (isHigh ? "high" : "normal"),
    };
  });
}

export interface RunOptions {
  readonly backend: Backend;
  readonly endpoint: string;
  readonly settings: RequestSettings;
  readonly requestIdPrefix: string;
  readonly maxConcurrency: number;
  readonly numWarmups: number;
  readonly goodput: Goodput;
  /** The same server with its admin token; null if there is none to watch. */
  readonly admin: Target | null;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
}

export interface Progress {
  readonly sent: number;
  readonly done: number;
  readonly failed: number;
  readonly outputTokens: number;
}

export interface RunResult {
  readonly startMs: number;
  readonly endMs: number;
  readonly requests: readonly LoadRequest[];
  readonly records: readonly RequestRecord[];
  readonly summary: Summary;
  /** By priority, if the load has both. */
  readonly byPriority: Readonly<Record<string, Summary>> | null;
  readonly timeline: Timeline | null;
  /** Why the instances were not watched, although that was asked for. */
  readonly timelineProblem: string | null;
}

/** Warms the server up, sends the load, and sums up. */
export async function runBenchmark(
  target: Target,
  requests: readonly LoadRequest[],
  options: RunOptions,
): Promise<RunResult> {
  const { backend, endpoint, settings, requestIdPrefix, clock, signal } = options;
  const send = target.sender(backend, endpoint, settings, requestIdPrefix);
  const stop = () => target.close();
  signal.addEventListener("abort", stop);
  try {
    const warmUps = Array.from({ length: options.numWarmups }, () => ({
      ...requests[0],
      arrivalMs: 0,
    }));
    const sendWarmUp = target.sender(backend, endpoint, settings, `${requestIdPrefix}warmup-`);
    const { maxConcurrency } = options;
    await runOpenLoop(warmUps, sendWarmUp, { clock, maxConcurrency, signal });
    const { observer, problem } = await observe(options);
    const progress = { sent: 0, done: 0, failed: 0, outputTokens: 0 };
    const load = await runOpenLoop(requests, send, {
      ...{ clock, maxConcurrency, signal },
      onSent() {
        progress.sent++;
        options.onProgress(progress);
      },
      onEnd({ failure, outputTokens }) {
        progress.done++;
        progress.outputTokens += outputTokens;
        if (failure !== null) progress.failed++;
        options.onProgress(progress);
      },
    });
    const timeline = await observer?.stop() ?? null;
    const summaryOf = (isPart: (request: LoadRequest) => boolean) => {
      const chosen = requests.slice(0, load.records.length)
        .map((request, i) => ({ request, record: load.records[i] }))
        .filter(({ request }) => isPart(request));
      const records = chosen.map(({ record }) => record);
      const planned = chosen.map(({ request }) => request.promptTokens);
      return summarize({ ...load, records }, planned, options.goodput);
    };
    const priorities = new Set(requests.map(({ priority }) => priority));
    return {
      startMs: load.startMs,
      endMs: load.endMs,
      requests,
      records: load.records,
      summary: summaryOf(() => true),
      byPriority: priorities.size < 2 ? null : Object.fromEntries(
        (["high", "normal"] as const).map((name) => [
          name,
          summaryOf(({ priority }) => priority === name),
        ]),
      ),
      timeline,
      timelineProblem: problem,
    };
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

async function observe({ admin, clock }: RunOptions) {
  if (admin === null) return { observer: null, problem: null };
  const observer = new Observer(admin, clock);
  try {
    await observer.start();
    return { observer, problem: null };
  } catch (error) {
    return { observer: null, problem: (error as Error).message };
  }
}
