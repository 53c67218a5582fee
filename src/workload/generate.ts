import { UsageError } from "../core/errors.ts";
import { Random } from "../core/random.ts";
import { type ArrivalSpec, gapsOf } from "./arrivals.ts";
import type { RequestLengths } from "./paper_lengths.ts";
import type { WorkloadRequest } from "./request.ts";

export interface GeneratedWorkload {
  readonly arrivals: ArrivalSpec;
  readonly lengths: RequestLengths;
  readonly numRequests: number;
  /** Fraction of the requests that have high priority. */
  readonly highPriority: number;
  /** A non-negative integer below 2^32. */
  readonly seed: number;
}

/** Each aspect of a workload has its own random stream, so that one can change alone. */
const streams = { arrivals: 1, prompts: 2, outputs: 3, priorities: 4, texts: 5, rows: 6 };

/** The random numbers of one aspect of a workload. */
export function streamOf(seed: number, stream: keyof typeof streams): Random {
  return new Random(streams[stream] * 2 ** 32 + seed);
}

/**
 * Makes requests one by one, in order of arrival. The first one also comes after a gap.
 * @throws {UsageError} numbers out of range
 */
export function* generateWorkload(workload: GeneratedWorkload): Generator<WorkloadRequest> {
  const { arrivals, lengths, numRequests, highPriority, seed } = workload;
  checkSeed(seed);
  checkFraction(highPriority);
  checkCount(numRequests);
  const nextGapMs = gapsOf(arrivals);
  const arrivalRandom = streamOf(seed, "arrivals");
  const promptRandom = streamOf(seed, "prompts"), outputRandom = streamOf(seed, "outputs");
  const priorityRandom = streamOf(seed, "priorities");
  let arrivalMs = 0;
  for (let i = 0; i < numRequests; i++) {
    arrivalMs += nextGapMs(arrivalRandom);
    yield {
      arrivalMs,
      promptTokens: lengths.prompt.sample(promptRandom),
      outputTokens: lengths.output.sample(outputRandom),
      priority: priorityRandom.uniform() < highPriority ? "high" : "normal",
    };
  }
}

/** @throws {UsageError} the seed is not an integer of 32 bits */
export function checkSeed(seed: number): void {
  if (Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32) return;
  throw new UsageError(`the seed of a workload is ${seed}: expected an integer from 0 to 2^32 - 1`);
}

/** @throws {UsageError} the fraction is not between 0 and 1 */
export function checkFraction(highPriority: number): void {
  if (highPriority >= 0 && highPriority <= 1) return;
  throw new UsageError(
    `the fraction of high-priority requests is ${highPriority}: expected a number from 0 to 1`,
  );
}

/** @throws {UsageError} the number is not a positive integer */
export function checkCount(numRequests: number): void {
  if (Number.isSafeInteger(numRequests) && numRequests >= 1) return;
  throw new UsageError(
    `the number of requests is ${numRequests}: expected an integer of 1 or more`,
  );
}
