/** Finds out what a server serves, makes the requests for it, and measures it. */
import type { Backend } from "../../bench/backends/backend.ts";
import { generateBenchmark } from "../../bench/backends/generate_benchmark.ts";
import { datasets } from "../../bench/datasets/datasets.ts";
import { PromptMaker } from "../../bench/datasets/prompt_maker.ts";
import type { LoadRequest } from "../../bench/load_request.ts";
import { loadOf, runBenchmark, type RunResult } from "../../bench/run.ts";
import { Target } from "../../bench/target.ts";
import { estimate, serverCounter, type TokenCounter } from "../../bench/token_counter.ts";
import { realClock, sleep } from "../../core/clock.ts";
import { UnavailableError, UsageError } from "../../core/errors.ts";
import { locateModel } from "../../model/locate.ts";
import type { BenchPlan } from "./plan.ts";
import { progressDisplay } from "./progress.ts";
import type { ServerSpec } from "./server.ts";

/** A server that answers. */
export interface Session {
  readonly spec: ServerSpec;
  /** Null if the server does not say, and `--model` does not either. */
  readonly model: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** Whether a server that was started is ready: ours says so itself, others answer `/v1/models`. */
export async function isServing({ spec, headers }: Session): Promise<boolean> {
  const target = targetOf(spec, headers);
  try {
    const answer = await target.json("GET", spec.isOurs ? "/is_ready" : "/v1/models");
    return !spec.isOurs || answer === true;
  } catch {
    return false;
  } finally {
    target.close();
  }
}

/** Headers of every request: the key of the environment, as in vLLM's benchmark, and those of `--header`. */
export function headersOf({ headers }: BenchPlan): Record<string, string> {
  const key = Deno.env.get("OPENAI_API_KEY");
  return { ...(key ? { authorization: `Bearer ${key}` } : {}), ...headers };
}

/**
 * Asks a server for the name of its model.
 * @throws {UnavailableError} it does not answer within `--ready-check-timeout-sec`
 */
export async function openSession(plan: BenchPlan, spec: ServerSpec): Promise<Session> {
  const headers = headersOf(plan);
  const { options, backend } = plan;
  const named = options.servedModelName ?? options.model;
  const deadlineMs = realClock.nowMs() + 1000 * options.readyCheckTimeoutSec;
  for (;;) {
    const target = targetOf(spec, headers);
    try {
      const model = await modelOf(target);
      return { spec, headers, model: named ?? model };
    } catch (error) {
      if (isKeyMissing(error)) throw keyMissing(spec, error as Error);
      if (isRefusal(error)) {
        if (named === null && backend !== generateBenchmark) throw noModel(spec, error as Error);
        return { spec, headers, model: named };
      }
      if (realClock.nowMs() >= deadlineMs) throw unreachable(spec, error as Error);
      await sleep(realClock, 500);
    } finally {
      target.close();
    }
  }
}

/** An answer of HTTP: the server is there, and has no such route or wants a key. */
function isRefusal(error: unknown): boolean {
  return (error as Error).message.startsWith("HTTP ");
}

function isKeyMissing(error: unknown): boolean {
  return /^HTTP 40[13] /.test((error as Error).message);
}

function keyMissing({ baseUrl }: ServerSpec, { message }: Error): UsageError {
  return new UsageError(
    `${baseUrl.href} lets nobody in without a key, or not with this one (GET /v1/models: ${message}): set ` +
      "OPENAI_API_KEY, or add --header 'Authorization=Bearer KEY'",
  );
}

function noModel({ baseUrl }: ServerSpec, { message }: Error): UsageError {
  return new UsageError(
    `${baseUrl.href} does not name its models (GET /v1/models: ${message}): add --model`,
  );
}

function unreachable({ baseUrl }: ServerSpec, { message }: Error): UnavailableError {
  return new UnavailableError(
    `no server answers at ${baseUrl.href} (${message}). Start it first, say where it is ` +
      "(--base-url), or let this command start it (--serve)",
  );
}

async function modelOf(target: Target): Promise<string | null> {
  const { data } = await target.json("GET", "/v1/models") as {
    readonly data?: readonly { readonly id?: string }[];
  };
  return data?.[0]?.id ?? null;
}

/**
 * Makes the requests of a load.
 * @param onNotice called with what the user should know
 * @throws {UsageError} the dataset cannot be read
 */
export async function makeRequests(
  plan: BenchPlan,
  { spec, headers, model }: Session,
  onNotice: (text: string) => void,
): Promise<LoadRequest[]> {
  const { options, schedule } = plan;
  const target = targetOf(spec, headers);
  try {
    const counter = await counterOf(plan, target, model);
    const dataset = datasets[options.datasetName];
    if (!counter.isExact) {
      onNotice(
        "Lengths of prompts are estimated: the server has no /tokenize; --tokenizer says how.",
      );
    }
    const requests = await dataset.load({
      path: options.datasetPath,
      numPrompts: options.numPrompts,
      seed: options.seed,
      oversample: !options.noOversample,
      shuffle: !options.disableShuffle,
      keepsTimes: schedule.kind === "trace",
      outputTokens: options.datasetName === "sharegpt"
        ? options.sharegptOutputLen
        : options.datasetName === "custom"
        ? options.customOutputLen
        : null,
      random: {
        inputTokens: options.randomInputLen,
        outputTokens: options.randomOutputLen,
        rangeRatio: options.randomRangeRatio,
        prefixTokens: options.randomPrefixLen,
      },
      counter,
      prompts: await PromptMaker.create(counter),
      onNotice,
    });
    return loadOf(requests, schedule, { seed: options.seed, highPriority: options.highPriority });
  } finally {
    target.close();
  }
}

async function counterOf(
  { options }: BenchPlan,
  target: Target,
  model: string | null,
): Promise<TokenCounter> {
  if (options.tokenizer === null) return await serverCounter(target, model) ?? estimate;
  const { loadTokenizer } = await import("../../frontend/tokenizer.ts");
  const directory = locateModel(options.tokenizer, { revision: null, downloadDir: null });
  const tokenizer = await loadTokenizer(directory);
  return {
    name: options.tokenizer,
    isExact: true,
    count: (text) => Promise.resolve(tokenizer.encode(text, { addSpecialTokens: true }).length),
  };
}

/** Sends the load to a server. @param what is shown before the progress */
export async function measure(
  plan: BenchPlan,
  session: Session,
  requests: readonly LoadRequest[],
  signal: AbortSignal,
  what: string,
): Promise<RunResult> {
  const { options, backend, endpoint } = plan;
  const { spec, headers, model } = session;
  const target = targetOf(spec, headers);
  const admin = spec.adminToken === null ? null : targetOf(spec, {
    ...headers,
    authorization: `Bearer ${spec.adminToken}`,
  });
  const display = await progressDisplay(what, requests.length, options.disableTqdm);
  try {
    return await runBenchmark(target, requests, {
      backend,
      endpoint,
      settings: settingsOf(plan, backend, model),
      requestIdPrefix: options.requestIdPrefix ?? `bench-${crypto.randomUUID().slice(0, 8)}-`,
      maxConcurrency: options.maxConcurrency ?? Infinity,
      numWarmups: options.numWarmups,
      goodput: plan.goodput,
      admin,
      clock: realClock,
      signal,
      onProgress: (progress) => display.show(progress),
    });
  } finally {
    display.finish();
    target.close();
    admin?.close();
  }
}

function settingsOf(
  { ignoreEos, options, extraBody }: BenchPlan,
  backend: Backend,
  model: string | null,
) {
  return {
    model: backend === generateBenchmark ? null : model,
    ignoreEos,
    logprobs: options.logprobs,
    extraBody,
  };
}

function targetOf({ baseUrl }: ServerSpec, headers: Readonly<Record<string, string>>): Target {
  return new Target({ baseUrl, headers, clock: realClock });
}
