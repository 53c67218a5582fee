/** Repetitions of one measurement. */
export interface Spread {
  readonly mean: number;
  readonly min: number;
  readonly max: number;
  /** Sample standard deviation; 0 for one value. */
  readonly deviation: number;
  readonly count: number;
}

/** @param values at least one */
export function spreadOf(values: readonly number[]): Spread {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    mean,
    min: Math.min(...values),
    max: Math.max(...values),
    deviation: values.length < 2 ? 0 : Math.sqrt(squares / (values.length - 1)),
    count: values.length,
  };
}

/** Three significant digits, without an exponent: 0.0123, 1.23, 12.3, 123, 12345. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  if (size >= 0.1) return value.toFixed(3);
  return String(Number(value.toPrecision(2)));
}

/** "12.3 ± 0.4", or the one value. */
export function formatSpread({ mean, deviation, count }: Spread): string {
  return count === 1 ? formatNumber(mean) : `${formatNumber(mean)} ± ${formatNumber(deviation)}`;
}
