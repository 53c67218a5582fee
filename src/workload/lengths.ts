/** Distributions of prompt and output lengths, in tokens. */
import { UsageError } from "../core/errors.ts";
import type { Random } from "../core/random.ts";

export interface LengthDistribution {
  readonly name: string;
  /** Mean of {@linkcode sample}, apart from rounding. */
  readonly meanTokens: number;
  /** Draws a length of 1 token or more. */
  sample(random: Random): number;
}

/** The same length for every request. */
export function fixedLength(tokens: number): LengthDistribution {
  if (!Number.isInteger(tokens) || tokens < 1) {
    throw new UsageError(`a length is ${tokens} tokens: expected an integer of 1 or more`);
  }
  return { name: String(tokens), meanTokens: tokens, sample: () => tokens };
}

export interface ZipfLaw {
  readonly name: string;
  readonly meanTokens: number;
  readonly exponent: number;
  /** Longer lengths are cut to this many tokens. */
  readonly maxTokens: number;
}

/**
 * The paper's heavy-tailed lengths, constructed as in its artifact: a rank r of 1 .. 2 * mean - 1 has a
 * probability in proportion to r^-exponent and stands for a length in proportion to r. The factor
 * between rank and length is chosen so that the lengths, cut to the maximum, have the mean.
 */
export function zipfLengths(
  { name, meanTokens, exponent, maxTokens }: ZipfLaw,
): LengthDistribution {
  const weights = Array.from({ length: 2 * meanTokens - 1 }, (_, i) => (i + 1) ** -exponent);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const meanWith = (scale: number) =>
    weights.reduce((sum, w, i) => sum + w * Math.min(maxTokens, scale * (i + 1)), 0) / total;
  const scale = solveIncreasing(meanWith, meanTokens, 0, maxTokens);
  const cumulative = new Float64Array(weights.length);
  let sum = 0;
  for (let i = 0; i < weights.length; i++) cumulative[i] = (sum += weights[i]) / total;
  return {
    name,
    meanTokens,
    sample(random) {
      const rank = 1 + firstAbove(cumulative, random.uniform());
      return Math.max(1, Math.round(Math.min(maxTokens, scale * rank)));
    },
  };
}

export interface QuantileTable {
  readonly name: string;
  readonly meanTokens: number;
  /** Points [probability, tokens] in increasing order, from probability 0 to 1. */
  readonly quantiles: readonly (readonly [number, number])[];
}

/**
 * Lengths with given quantiles and mean. Between two points the quantile function is a straight line
 * after a power transform, tokens^power (the logarithm at power 0). One power, chosen so that the
 * lengths have the mean, holds for all segments.
 * @throws {UsageError} no power gives the mean
 */
export function quantileLengths(
  { name, meanTokens, quantiles }: QuantileTable,
): LengthDistribution {
  const meanWith = (power: number) => quantileMean(quantiles, power);
  if (!(meanWith(-MAX_POWER) <= meanTokens && meanTokens <= meanWith(MAX_POWER))) {
    throw new UsageError(`the lengths ${name} cannot have these quantiles and mean ${meanTokens}`);
  }
  const power = solveIncreasing(meanWith, meanTokens, -MAX_POWER, MAX_POWER);
  return {
    name,
    meanTokens,
    sample(random) {
      const u = random.uniform();
      let i = 1;
      while (i < quantiles.length - 1 && quantiles[i][0] <= u) i++;
      const [fromU, from] = quantiles[i - 1], [toU, to] = quantiles[i];
      return Math.max(1, Math.round(between(from, to, (u - fromU) / (toU - fromU), power)));
    },
  };
}

/** Steeper transforms are no longer smooth. */
const MAX_POWER = 3;

/** The point at `fraction` of the way between two numbers, in a straight line after the transform. */
function between(from: number, to: number, fraction: number, power: number): number {
  if (Math.abs(power) < 1e-6) return from * (to / from) ** fraction;
  return (from ** power + fraction * (to ** power - from ** power)) ** (1 / power);
}

/** Mean of a quantile function: its integral over (0, 1), by the midpoint rule in each segment. */
function quantileMean(quantiles: QuantileTable["quantiles"], power: number): number {
  const steps = 200;
  let mean = 0;
  for (let i = 1; i < quantiles.length; i++) {
    const [fromU, from] = quantiles[i - 1], [toU, to] = quantiles[i];
    let sum = 0;
    for (let k = 0; k < steps; k++) sum += between(from, to, (k + 0.5) / steps, power);
    mean += (toU - fromU) * sum / steps;
  }
  return mean;
}

/** Where an increasing function has a value, by bisection between two bounds. */
function solveIncreasing(
  f: (x: number) => number,
  value: number,
  low: number,
  high: number,
): number {
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (f(middle) < value) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Index of the first entry of an increasing array that is above `value`, at most the last. */
function firstAbove(sorted: Float64Array, value: number): number {
  let low = 0, high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
