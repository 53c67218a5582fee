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

/** Three significant digits without an exponent, 0 below half a millionth: 0.0123, 12.3, 123, 12345. */
export function formatNumber(value: number): string {
  return formatFixed(value, decimalsOf(value));
}

/** "12.3 ± 0.4", or the one value. The deviation is 0 where it is below the value's last digit. */
export function formatSpread({ mean, deviation, count }: Spread): string {
  if (count === 1) return formatNumber(mean);
  const decimals = Math.min(decimalsOf(mean), decimalsOf(deviation));
  return `${formatNumber(mean)} ± ${formatFixed(deviation, decimals)}`;
}

const MAX_DECIMALS = 6;

function decimalsOf(value: number): number {
  const size = Math.abs(value);
  if (size === 0) return MAX_DECIMALS;
  return Math.min(MAX_DECIMALS, Math.max(0, 2 - Math.floor(Math.log10(size))));
}

function formatFixed(value: number, decimals: number): string {
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? "0" : text;
}
