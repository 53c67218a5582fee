/**
 * Selection by weighted rank without a sort: a radix descent over the bits of the values, with at most
 * three passes over the remaining candidates. Ties between equal values go to the lowest id.
 */

const levels = [
  { shift: 21, mask: 0x7ff },
  { shift: 10, mask: 0x7ff },
  { shift: 0, mask: 0x3ff },
] as const;

const negativeZero = 1 << 31;

/** Unsigned 32-bit integer that orders like the (non-NaN) float32 whose bits are given. */
function orderedKey(bits: number): number {
  if (bits === negativeZero) bits = 0;
  return (bits ^ ((bits >> 31) | negativeZero)) >>> 0;
}

/**
 * Ids of the `n` largest values in order, equal values by id. Insertion is fast while `n` is small: few
 * values then exceed the n-th best so far.
 * @param values [vocab]
 * @param ids [count] candidates, ascending
 */
export function largest(
  values: Float32Array,
  ids: Int32Array,
  count: number,
  n: number,
): Int32Array {
  const best = new Int32Array(n);
  let found = 0;
  let worst = -Infinity;
  for (let j = 0; j < count; j++) {
    const id = ids[j], value = values[id];
    if (found === n && value <= worst) continue;
    let place = found < n ? found++ : n - 1;
    for (; place > 0 && values[best[place - 1]] < value; place--) best[place] = best[place - 1];
    best[place] = id;
    worst = values[best[found - 1]];
  }
  return best.subarray(0, found);
}

/** Finds cuts in the order of (value, then descending id). Scratch is reused between calls. */
export class RankSelector {
  #mass = new Float64Array(2048);
  #members: Int32Array;
  #identity: Int32Array;

  /** @param capacity most candidates of one call */
  constructor(capacity: number) {
    this.#members = new Int32Array(capacity);
    this.#identity = Int32Array.from({ length: capacity }, (_, i) => i);
  }

  /**
   * Goes through the candidates from the smallest value up, ties from the highest id down, summing
   * their weights, and stops at the first whose running sum exceeds `limit`.
   * @param bits [vocab] bits of the float32 values
   * @param ids [count] candidates, ascending
   * @param weights [count] not negative, not all zero
   * @returns index into `ids`; the last candidate of the order when no sum exceeds `limit`
   */
  firstAbove(
    bits: Int32Array,
    ids: Int32Array,
    weights: Float64Array,
    count: number,
    limit: number,
  ): number {
    const members = this.#members;
    members.set(this.#identity.subarray(0, count));
    let remaining = count;
    let below = 0;
    for (const { shift, mask } of levels) {
      const mass = this.#mass.fill(0);
      for (let m = 0; m < remaining; m++) {
        const j = members[m];
        mass[(orderedKey(bits[ids[j]]) >>> shift) & mask] += weights[j];
      }
      const bucket = firstBucketAbove(mass, limit - below);
      for (let b = 0; b < bucket; b++) below += mass[b];
      let kept = 0;
      for (let m = 0; m < remaining; m++) {
        const j = members[m];
        if (((orderedKey(bits[ids[j]]) >>> shift) & mask) === bucket) members[kept++] = j;
      }
      remaining = kept;
    }
    for (let m = remaining - 1; m > 0; m--) {
      below += weights[members[m]];
      if (below > limit) return members[m];
    }
    return members[0];
  }
}

/** The first bucket at which the running mass exceeds `limit`, else the last bucket with any mass. */
function firstBucketAbove(mass: Float64Array, limit: number): number {
  let sum = 0;
  let last = 0;
  for (let b = 0; b < mass.length; b++) {
    if (mass[b] === 0) continue;
    last = b;
    sum += mass[b];
    if (sum > limit) break;
  }
  return last;
}
