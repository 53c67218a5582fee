import { type Distribution, NUM_QUANTILES } from "./distribution.ts";

/** Relative width of a bucket: the error of a quantile. */
const PRECISION = 0.005;
/** Smaller values share the first bucket. */
const SMALLEST = 1e-3;

/** Counts any number of positive values in constant memory; quantiles are right within 0.5%. */
export class Histogram {
  readonly #scale = 1 / Math.log1p(PRECISION);
  #counts = new Float64Array(4096);
  #count = 0;
  #sum = 0;
  #max = 0;

  /** The value before and its bucket: the same often comes several times in a row. */
  #lastValue = 0;
  #lastBucket = 0;

  add(value: number): void {
    if (value !== this.#lastValue) this.#find(value);
    this.#counts[this.#lastBucket]++;
    this.#count++;
    this.#sum += value;
    if (value > this.#max) this.#max = value;
  }

  distribution(): Distribution {
    const quantiles = Array.from(
      { length: NUM_QUANTILES },
      (_, i) => this.#quantile(i / (NUM_QUANTILES - 1)),
    );
    return {
      count: this.#count,
      mean: this.#count === 0 ? 0 : this.#sum / this.#count,
      p50: this.#quantile(0.5),
      p99: this.#quantile(0.99),
      max: this.#max,
      quantiles,
    };
  }

  #find(value: number): void {
    const bucket = value <= SMALLEST ? 0 : 1 + Math.floor(Math.log(value / SMALLEST) * this.#scale);
    if (bucket >= this.#counts.length) this.#grow(bucket);
    this.#lastValue = value;
    this.#lastBucket = bucket;
  }

  #quantile(fraction: number): number {
    if (this.#count === 0) return 0;
    const rank = fraction * (this.#count - 1);
    let passed = 0;
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      passed += this.#counts[bucket];
      if (passed > rank) return Math.min(this.#max, this.#middle(bucket));
    }
    return this.#max;
  }

  #middle(bucket: number): number {
    return bucket === 0 ? 0 : SMALLEST * Math.exp((bucket - 0.5) / this.#scale);
  }

  #grow(bucket: number): void {
    const counts = new Float64Array(2 * bucket);
    counts.set(this.#counts);
    this.#counts = counts;
  }
}
