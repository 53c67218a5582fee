import { UsageError } from "../core/errors.ts";
import type { Random } from "../core/random.ts";

/** An arrival process. Rates are requests per second. */
export type ArrivalSpec =
  | { readonly kind: "poisson"; readonly rate: number }
  /** Gamma-distributed gaps: coefficient of variation 1 is Poisson, more is burstier. */
  | { readonly kind: "gamma"; readonly rate: number; readonly cv: number }
  /** Equal gaps. */
  | { readonly kind: "uniform"; readonly rate: number }
  /** All at once. */
  | { readonly kind: "burst" };

/** Draws the milliseconds until the next request. */
export type NextGapMs = (random: Random) => number;

/**
 * The gaps of an arrival process.
 * @throws {UsageError} a rate or a coefficient of variation that is not a positive number
 */
export function gapsOf(spec: ArrivalSpec): NextGapMs {
  if (spec.kind === "burst") return () => 0;
  const meanMs = 1000 / positive("the rate of arrivals", spec.rate);
  switch (spec.kind) {
    case "poisson":
      return (random) => meanMs * random.exponential();
    case "uniform":
      return () => meanMs;
    case "gamma": {
      const cv = positive("the coefficient of variation of arrivals", spec.cv);
      const shape = 1 / (cv * cv);
      return (random) => meanMs / shape * gamma(shape, random);
    }
  }
}

function positive(what: string, value: number): number {
  if (value > 0 && Number.isFinite(value)) return value;
  throw new UsageError(`${what} is ${value}: expected a number greater than 0`);
}

/**
 * Gamma with mean and variance `shape` (Marsaglia and Tsang, "A simple method for generating gamma
 * variables", 2000; for shapes below 1 with their boost by a power of a uniform number).
 */
function gamma(shape: number, random: Random): number {
  if (shape < 1) {
    const boost = Math.pow(1 - random.uniform(), 1 / shape);
    return gamma(shape + 1, random) * boost;
  }
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const normal = random.normal();
    const v = (1 + c * normal) ** 3;
    if (v <= 0) continue;
    const uniform = 1 - random.uniform();
    if (Math.log(uniform) < normal * normal / 2 + d * (1 - v + Math.log(v))) return d * v;
  }
}
