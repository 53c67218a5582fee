/** When the requests of a load are sent: by vLLM's arguments, or by Llumnix's. */
import { UsageError } from "../core/errors.ts";
import type { Random } from "../core/random.ts";
import { type ArrivalSpec, gapsOf } from "../workload/arrivals.ts";

/** Rates are requests per second. */
export type Schedule =
  /** All at once. */
  | { readonly kind: "burst" }
  /** vLLM's `--request-rate` and `--burstiness`: the shape of the gamma distribution, Infinity for equal gaps. */
  | { readonly kind: "rate"; readonly rate: number; readonly burstiness: number }
  /** vLLM's `--ramp-up-strategy`: the rate goes from one value to the other over the requests. */
  | {
    readonly kind: "ramp";
    readonly strategy: "linear" | "exponential";
    readonly startRate: number;
    readonly endRate: number;
    readonly burstiness: number;
  }
  /** Llumnix's `--qps` and `--distribution`. */
  | { readonly kind: "arrivals"; readonly arrivals: ArrivalSpec }
  /** The times of the dataset, faster by a factor. */
  | { readonly kind: "trace"; readonly speedup: number };

/**
 * The milliseconds from the start of the load at which each request is sent, in increasing order.
 * @param recordedMs the times of the dataset, for `trace`; null if it has none
 * @throws {UsageError} the dataset has no times, or a rate is out of range
 */
export function arrivalTimes(
  schedule: Schedule,
  count: number,
  random: Random,
  recordedMs: readonly number[] | null = null,
): number[] {
  if (schedule.kind === "trace") {
    if (recordedMs !== null) return recordedMs.slice(0, count).map((ms) => ms / schedule.speedup);
    throw new UsageError("the dataset has no times: leave --trace-speedup out, and set a rate");
  }
  const gaps = Array.from({ length: count }, gapSource(schedule, count, random));
  let sum = 0;
  const times = gaps.map((gapMs) => sum += gapMs);
  // As vLLM does: the drawn gaps are scaled, so that the last request is sent at count / rate seconds.
  const scale = schedule.kind === "rate" && sum > 0 ? 1000 * count / schedule.rate / sum : 1;
  return times.map((ms) => ms * scale);
}

/** Draws the milliseconds before the request of an index. */
function gapSource(
  schedule: Exclude<Schedule, { kind: "trace" }>,
  count: number,
  random: Random,
): (_: unknown, index: number) => number {
  switch (schedule.kind) {
    case "burst":
      return () => 0;
    case "arrivals": {
      const nextGapMs = gapsOf(schedule.arrivals);
      return () => nextGapMs(random);
    }
    case "rate": {
      const nextGapMs = gapsOf(gammaArrivals(schedule.rate, schedule.burstiness));
      return () => nextGapMs(random);
    }
    case "ramp":
      return (_, index) =>
        gapsOf(gammaArrivals(rampRate(schedule, index, count), schedule.burstiness))(random);
  }
}

/** A gamma distribution of shape s has the coefficient of variation 1 / sqrt(s). */
function gammaArrivals(rate: number, burstiness: number): ArrivalSpec {
  if (burstiness === Infinity) return { kind: "uniform", rate };
  return { kind: "gamma", rate, cv: 1 / Math.sqrt(burstiness) };
}

/** The rate at a request, as in vLLM's `_get_current_request_rate`. */
function rampRate(
  { strategy, startRate, endRate }: Extract<Schedule, { kind: "ramp" }>,
  index: number,
  count: number,
): number {
  const progress = index / Math.max(count - 1, 1);
  return strategy === "linear"
    ? startRate + (endRate - startRate) * progress
    : startRate * (endRate / startRate) ** progress;
}
