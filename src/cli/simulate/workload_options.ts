/** From given options to the workloads of an experiment. */
import { UsageError } from "../../core/errors.ts";
import type { WorkloadConfig } from "../../sim/experiment/experiment_config.ts";
import { type ArrivalSpec, gapsOf } from "../../workload/arrivals.ts";
import { requestLengths } from "../../workload/paper_lengths.ts";
import { leftOutText, readTrace } from "../../workload/trace_file.ts";
import { didYouMean } from "../../core/suggest.ts";
import type { Given } from "./cluster_options.ts";

const DEFAULT_REQUESTS = 10_000;
const DEFAULT_LENGTHS = "s-s";
const DEFAULT_CV = 2;

/**
 * The workloads that the command line asks for: one per rate and coefficient of variation.
 * @throws {UsageError} values that contradict each other
 */
export function workloadsOf(given: Given): WorkloadConfig[] {
  const trace = given.get("trace") as string | undefined ?? null;
  const lengths = trace === null ? lengthsOf(given) : null;
  const common = {
    lengths,
    trace,
    numRequests: numRequestsOf(given, trace),
    highPriority: (given.get("high-priority") ?? 0) as number,
  };
  const what = trace ?? lengths!.toUpperCase();
  return arrivalsOf(given, trace !== null).map((arrivals) => ({
    name: arrivals === null ? what : `${what} ${describe(arrivals)}`,
    arrivals,
    ...common,
  }));
}

/** The times of a trace are kept unless arrivals are asked for. */
function arrivalsOf(given: Given, hasTrace: boolean): (ArrivalSpec | null)[] {
  const kind = given.get("arrivals") ?? (given.has("cv") ? "gamma" : "poisson");
  const rates = numbers(given, "rate");
  const cvs = numbers(given, "cv");
  if (cvs !== null && kind !== "gamma") {
    throw new UsageError(`--cv is for --arrivals gamma, and --arrivals is ${kind}`);
  }
  if (kind === "burst") {
    if (rates !== null) throw new UsageError("--rate and --arrivals burst: a burst has no rate");
    return [{ kind: "burst" }];
  }
  if (rates === null) {
    if (hasTrace && !given.has("arrivals") && cvs === null) return [null];
    throw new UsageError(`--rate is missing: requests per second, such as --rate 8`);
  }
  const specs = rates.flatMap((rate): ArrivalSpec[] =>
    kind === "gamma"
      ? (cvs ?? [DEFAULT_CV]).map((cv) => ({ kind, rate, cv }))
      : [{ kind: kind as "poisson" | "uniform", rate }]
  );
  for (const spec of specs) gapsOf(spec); // refuses what is out of range
  return specs;
}

function numbers(given: Given, name: string): number[] | null {
  const written = given.get(name) as readonly string[] | undefined;
  if (written === undefined) return null;
  return written.flatMap((text) => text.split(",")).map((text) => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (Number.isFinite(value) && value > 0) return value;
    throw new UsageError(`--${name} ${text}: expected a number greater than 0`);
  });
}

function describe(arrivals: ArrivalSpec): string {
  switch (arrivals.kind) {
    case "burst":
      return "burst";
    case "gamma":
      return `${arrivals.rate} req/s CV ${arrivals.cv}`;
    default:
      return `${arrivals.rate} req/s`;
  }
}

function lengthsOf(given: Given): string {
  const lengths = (given.get("lengths") ?? DEFAULT_LENGTHS) as string;
  try {
    requestLengths(lengths);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`--lengths ${lengths}: ${error.message}`);
  }
  return lengths;
}

function numRequestsOf(given: Given, trace: string | null): number | null {
  const requests = given.get("requests") as number | undefined;
  return requests ?? (trace === null ? DEFAULT_REQUESTS : null);
}

/**
 * Reads every row once, so that a bad one is found before an hour of simulation.
 * @returns a notice about rows that are left out; null if there are none
 * @throws {UsageError} a trace that cannot be read, or that lacks what other options need
 */
export function checkTrace(path: string, given: Given): string | null {
  if (given.has("lengths")) {
    throw new UsageError("--lengths and --trace: a trace has its own lengths");
  }
  let left = (given.get("requests") ?? Infinity) as number;
  let numLeftOut = 0, why = "";
  const onLeftOut = (reason: string) => {
    numLeftOut++;
    why = reason;
  };
  for (const { arrivalMs } of readTrace(path, { onLeftOut })) {
    if (arrivalMs === null && !given.has("rate") && given.get("arrivals") !== "burst") {
      throw new UsageError(`The trace ${path} has no times: add --rate`);
    }
    if (--left <= 0) break;
  }
  return numLeftOut === 0 ? null : `${path}: ${leftOutText(numLeftOut, why)}`;
}

/** @throws {UsageError} always: there is no such preset */
export function unknownPreset(name: string, known: readonly string[]): never {
  throw new UsageError(
    `--preset ${name}: expected one of ${known.join(", ")}${didYouMean(name, known)}`,
  );
}
