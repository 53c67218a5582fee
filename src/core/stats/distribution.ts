/** What is told of many measured values. */

/** Quantiles that a {@linkcode Distribution} keeps: 0, 0.5, ... 100 percent. */
export const NUM_QUANTILES = 201;

export interface Distribution {
  readonly count: number;
  /** 0 where there are no values, as all that follows. */
  readonly mean: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** At equal distances from the smallest value to the largest. */
  readonly quantiles: readonly number[];
}

/** The value below which a fraction of the sorted values lies, by linear interpolation. */
export function quantile(sorted: ArrayLike<number>, fraction: number): number {
  if (sorted.length === 0) return 0;
  const position = fraction * (sorted.length - 1);
  const below = Math.floor(position), above = Math.ceil(position);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}

export function distributionOf(values: Iterable<number>): Distribution {
  const sorted = Float64Array.from(values).sort();
  let sum = 0;
  for (const value of sorted) sum += value;
  return {
    count: sorted.length,
    mean: sorted.length === 0 ? 0 : sum / sorted.length,
    p50: quantile(sorted, 0.5),
    p99: quantile(sorted, 0.99),
    max: quantile(sorted, 1),
    quantiles: Array.from(
      { length: NUM_QUANTILES },
      (_, i) => quantile(sorted, i / (NUM_QUANTILES - 1)),
    ),
  };
}
