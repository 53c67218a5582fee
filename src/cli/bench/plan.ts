/** From a command line to what is measured and written. */
import { backends } from "../../bench/backends/backends.ts";
import type { Backend } from "../../bench/backends/backend.ts";
import type { ShownOptions } from "../../bench/results/shown.ts";
import type { Schedule } from "../../bench/schedule.ts";
import { type Goodput, type LatencyName, latencyNames } from "../../bench/summary.ts";
import { UsageError } from "../../core/errors.ts";
import { didYouMean } from "../../core/suggest.ts";
import { camelCase, type Value } from "../arguments/argument.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import { readCommandLine } from "../command_line.ts";
import { benchGroups, type BenchOptions } from "./arguments.ts";
import { type ServerSpec, serverSpec } from "./server.ts";

export interface BenchPlan {
  readonly options: BenchOptions;
  readonly backend: Backend;
  readonly endpoint: string;
  readonly schedule: Schedule;
  readonly ignoreEos: boolean;
  readonly headers: Readonly<Record<string, string>>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly extraBody: Readonly<Record<string, unknown>>;
  readonly goodput: Goodput;
  readonly shown: ShownOptions;
  /** One server, or the two of `--compare`. */
  readonly servers: readonly ServerSpec[];
  /** To be shown before the run. */
  readonly warnings: readonly string[];
}

const index = new ArgumentIndex(benchGroups);

/** @throws {UsageError} values that are wrong, or contradict each other */
export function readPlan(argv: readonly string[]): BenchPlan {
  const given = readCommandLine(argv, index);
  const warnings = checkStatus(given);
  const options = Object.fromEntries(
    index.entries.map(({ name, argument }) => [
      camelCase(name),
      given.get(name) ?? argument.default,
    ]),
  ) as unknown as BenchOptions;
  const backend = backends[options.backend];
  const schedule = scheduleOf(options, given);
  checkDataset(options);
  return {
    options,
    backend,
    endpoint: endpointOf(options, backend),
    schedule,
    ignoreEos: options.ignoreEos || options.datasetName === "random",
    headers: pairs("header", options.header),
    metadata: pairs("metadata", options.metadata),
    extraBody: { ...samplingOf(options), ...objectOf(options.extraBody) },
    goodput: goodputOf(options.goodput ?? []),
    shown: {
      latencies: latenciesOf(options.percentileMetrics),
      percentiles: percentilesOf(options.metricPercentiles),
      maxConcurrency: options.maxConcurrency,
      requestRate: options.qps ?? options.requestRate,
    },
    servers: serversOf(options),
    warnings,
  };
}

/** @throws {UsageError} an argument that this program does not have */
function checkStatus(given: ReadonlyMap<string, Value>): string[] {
  const warnings: string[] = [];
  for (const { name, argument: { status } } of index.entries) {
    if (!given.has(name)) continue;
    if (status.kind === "refused") {
      throw new UsageError(`--${name} is not supported: ${status.reason}`);
    }
    if (status.kind === "accepted") warnings.push(`--${name} has no effect: ${status.reason}`);
  }
  return warnings;
}

function scheduleOf(options: BenchOptions, given: ReadonlyMap<string, Value>): Schedule {
  const { requestRate, qps, distribution, coefficientVariation, traceSpeedup } = options;
  const burstiness = burstinessOf(options);
  const ways = ["request-rate", "qps", "ramp-up-strategy", "trace-speedup"]
    .filter((name) => given.has(name));
  if (ways.length > 1) {
    throw new UsageError(
      `--${ways[0]} and --${ways[1]} both say when requests are sent: choose one`,
    );
  }
  for (const name of ["distribution", "coefficient-variation"]) {
    if (given.has(name) && qps === null && distribution !== "burst") {
      throw new UsageError(
        `--${name} is for --qps: add --qps RATE, or use --burstiness with --request-rate`,
      );
    }
  }
  if (options.rampUpStrategy !== null) return rampOf(options);
  if (given.has("ramp-up-start-rps") || given.has("ramp-up-end-rps")) {
    throw new UsageError(
      "--ramp-up-start-rps and --ramp-up-end-rps need --ramp-up-strategy linear or exponential",
    );
  }
  const isTimed = options.datasetName === "mooncake" && ways.length === 0;
  if (traceSpeedup !== null || isTimed) return { kind: "trace", speedup: traceSpeedup ?? 1 };
  if (given.has("distribution") && distribution === "burst") return { kind: "burst" };
  if (qps === null) {
    return requestRate === null
      ? { kind: "burst" }
      : { kind: "rate", rate: requestRate, burstiness };
  }
  if ((distribution === "gamma") !== (coefficientVariation !== null)) {
    throw new UsageError(
      "--distribution gamma and --coefficient-variation need each other: give both or neither",
    );
  }
  const arrivals = distribution === "gamma"
    ? { kind: "gamma" as const, rate: qps, cv: coefficientVariation! }
    : { kind: distribution as "uniform" | "poisson", rate: qps };
  return { kind: "arrivals", arrivals };
}

function rampOf(options: BenchOptions): Schedule {
  const { rampUpStrategy, rampUpStartRps, rampUpEndRps } = options;
  if (rampUpStartRps === null || rampUpEndRps === null) {
    throw new UsageError("--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps");
  }
  if (rampUpStartRps > rampUpEndRps) {
    throw new UsageError(
      `--ramp-up-start-rps ${rampUpStartRps} is more than --ramp-up-end-rps ${rampUpEndRps}: expected a ` +
        "rate that grows",
    );
  }
  return {
    kind: "ramp",
    strategy: rampUpStrategy!,
    startRate: rampUpStartRps,
    endRate: rampUpEndRps,
    burstiness: burstinessOf(options),
  };
}

function burstinessOf({ burstiness }: BenchOptions): number {
  const value = /^inf(inity)?$/i.test(burstiness) ? Infinity : Number(burstiness || NaN);
  if (value > 0) return value;
  throw new UsageError(`--burstiness ${burstiness}: expected a number greater than 0, or inf`);
}

function checkDataset({ datasetName, datasetPath, traceSpeedup }: BenchOptions): void {
  if (datasetName === "random" && datasetPath !== null) {
    throw new UsageError(
      "--dataset-path needs a --dataset-name other than random, which has no file",
    );
  }
  if (datasetName !== "random" && datasetPath === null) {
    throw new UsageError(`--dataset-name ${datasetName} needs --dataset-path FILE`);
  }
  if (traceSpeedup !== null && datasetName !== "burstgpt" && datasetName !== "mooncake") {
    throw new UsageError(
      `--trace-speedup: the dataset ${datasetName} has no times; use --dataset-name burstgpt or ` +
        "mooncake, or leave --trace-speedup out and set a rate",
    );
  }
}

function endpointOf({ endpoint }: BenchOptions, backend: Backend): string {
  if (endpoint === null) return backend.endpoint;
  if (endpoint.startsWith("/")) return endpoint;
  throw new UsageError(`--endpoint ${endpoint}: expected a path that begins with a slash`);
}

function pairs(name: string, written: readonly string[] | null): Record<string, string> {
  return Object.fromEntries((written ?? []).map((text) => {
    const [key, ...rest] = text.split("=");
    if (rest.length > 0 && key.trim() !== "") return [key.trim(), rest.join("=").trim()];
    throw new UsageError(`--${name} ${text}: expected KEY=VALUE`);
  }));
}

function samplingOf(options: BenchOptions): Record<string, number> {
  const sampling = {
    temperature: options.temperature,
    top_p: options.topP,
    top_k: options.topK,
    min_p: options.minP,
    frequency_penalty: options.frequencyPenalty,
    presence_penalty: options.presencePenalty,
    repetition_penalty: options.repetitionPenalty,
  };
  return Object.fromEntries(
    Object.entries(sampling).filter(([, value]) => value !== null),
  ) as Record<
    string,
    number
  >;
}

function objectOf(text: string | null): Record<string, unknown> {
  const value = text === null ? {} : JSON.parse(text);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new UsageError(`--extra-body ${text}: expected a JSON object`);
}

function goodputOf(written: readonly string[]): Goodput {
  return Object.fromEntries(written.map((text) => {
    const [name, limit, ...rest] = text.split(":");
    const known = ["ttft", "tpot", "e2el"];
    const value = limit === undefined || limit === "" ? NaN : Number(limit);
    if (known.includes(name) && value >= 0 && rest.length === 0) return [name, value];
    throw new UsageError(
      `--goodput ${text}: expected NAME:MILLISECONDS with a name of ${known.join(", ")}` +
        (known.includes(name) ? "" : didYouMean(name, known)),
    );
  }));
}

function latenciesOf(text: string): LatencyName[] {
  const names = text.split(",").map((name) => name.trim());
  for (const name of names) {
    if ((latencyNames as readonly string[]).includes(name)) continue;
    throw new UsageError(
      `--percentile-metrics ${text}: there is no latency "${name}", expected some of ` +
        `${latencyNames.join(", ")}${didYouMean(name, latencyNames)}`,
    );
  }
  return latencyNames.filter((name) => names.includes(name));
}

function percentilesOf(text: string): number[] {
  return text.split(",").map((part) => {
    const value = part.trim() === "" ? NaN : Number(part);
    if (value >= 0 && value <= 100) return value;
    throw new UsageError(
      `--metric-percentiles ${text}: "${part}" is no percentile, expected numbers from 0 to 100`,
    );
  });
}

function serversOf(options: BenchOptions): ServerSpec[] {
  const { compare, serve, rounds } = options;
  if (compare !== null) {
    if (serve !== null) throw new UsageError("--compare starts its servers: leave --serve out");
    if (compare.length !== 2) {
      throw new UsageError(
        `--compare takes two servers, each in quotes, not ${compare.length} (a single option is ` +
          'written with serve: "serve --enable-migration")',
      );
    }
    return compare.map((text) => serverSpec(text, options));
  }
  if (rounds !== 1) {
    throw new UsageError("--rounds is for --compare: leave it out, or give two servers to compare");
  }
  return [serverSpec(serve, options)];
}
