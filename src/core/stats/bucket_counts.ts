/** A histogram of fixed buckets, as Prometheus has them. */
export interface Buckets {
  /** Upper bounds, ascending; a value that equals a bound counts below it. */
  readonly bounds: readonly number[];
  /** Values of each bucket alone, one more than there are bounds: the last is above all of them. */
  readonly counts: readonly number[];
  readonly sum: number;
}

/** Counts values into fixed buckets. Adding one costs some nanoseconds, and no memory. */
export class BucketCounts implements Buckets {
  readonly counts: number[];
  sum = 0;

  /** @param bounds ascending */
  constructor(readonly bounds: readonly number[]) {
    this.counts = new Array(bounds.length + 1).fill(0);
  }

  /** Ignores what is no number: it would spoil the sum for ever. */
  add(value: number): void {
    if (!Number.isFinite(value)) return;
    let low = 0, high = this.bounds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (value <= this.bounds[middle]) high = middle;
      else low = middle + 1;
    }
    this.counts[low]++;
    this.sum += value;
  }

  snapshot(): Buckets {
    return { bounds: this.bounds, counts: [...this.counts], sum: this.sum };
  }
}
