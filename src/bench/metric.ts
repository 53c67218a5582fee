import { quantile } from "../core/stats/distribution.ts";

/** Many measurements of one kind, in milliseconds. Figures of no measurements are 0, as in vLLM. */
export class Metric {
  /** In increasing order. */
  readonly sorted: Float64Array;
  readonly mean: number;
  /** Of the population, as numpy's `std`. */
  readonly std: number;

  constructor(values: Iterable<number>) {
    this.sorted = Float64Array.from(values).sort();
    const count = this.sorted.length || 1;
    let sum = 0, squares = 0;
    for (const value of this.sorted) sum += value;
    this.mean = sum / count;
    for (const value of this.sorted) squares += (value - this.mean) ** 2;
    this.std = Math.sqrt(squares / count);
  }

  get count(): number {
    return this.sorted.length;
  }

  get median(): number {
    return this.percentile(50);
  }

  /** @param p from 0 to 100; between two values by linear interpolation, as in numpy */
  percentile(p: number): number {
    return quantile(this.sorted, p / 100);
  }
}
