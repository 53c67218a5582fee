import { UsageError } from "../core/errors.ts";
import { type ArrivalSpec, gapsOf } from "./arrivals.ts";
import { checkCount, checkFraction, checkSeed, streamOf } from "./generate.ts";
import type { WorkloadRequest } from "./request.ts";
import type { TraceRow } from "./trace_file.ts";

export interface ReplayedWorkload {
  readonly rows: Iterable<TraceRow>;
  /** Null keeps the trace's own times. */
  readonly arrivals: ArrivalSpec | null;
  /** Null takes the whole trace. */
  readonly numRequests: number | null;
  /** Fraction of high priority among the requests whose priority the trace does not tell. */
  readonly highPriority: number;
  /** A non-negative integer below 2^32. */
  readonly seed: number;
}

/**
 * The requests of a trace one by one, in order of arrival.
 * @throws {UsageError} a number is out of range, or neither the trace nor the options give times
 */
export function* replayWorkload(workload: ReplayedWorkload): Generator<WorkloadRequest> {
  const { rows, arrivals, numRequests, highPriority, seed } = workload;
  checkSeed(seed);
  checkFraction(highPriority);
  if (numRequests !== null) checkCount(numRequests);
  const nextGapMs = arrivals && gapsOf(arrivals);
  const arrivalRandom = streamOf(seed, "arrivals"), priorityRandom = streamOf(seed, "priorities");
  let arrivalMs = 0;
  let left = numRequests ?? Infinity;
  for (const row of rows) {
    if (left-- <= 0) return;
    if (nextGapMs) arrivalMs += nextGapMs(arrivalRandom);
    else if (row.arrivalMs !== null) arrivalMs = row.arrivalMs;
    else {
      throw new UsageError(
        "the trace has no times (ShareGPT has none): choose arrivals, such as Poisson at a rate",
      );
    }
    const isHigh = priorityRandom.uniform() < highPriority;
    const { promptTokens, outputTokens, priority } = row;
    yield {
      arrivalMs,
      promptTokens,
      outputTokens,
      priority: priority ?? (isHigh ? "high" : "normal"),
    };
  }
}
