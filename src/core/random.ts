/**
 * Counter-based random numbers (Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC'11). A value is a pure function of key and counter, so a request draws the same
 * numbers wherever, and however often, a position is computed.
 */

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the 64-bit product of two unsigned 32-bit integers. */
function mulHi(a: number, b: number): number {
  const aLo = a & 0xffff, aHi = a >>> 16;
  const bLo = b & 0xffff, bHi = b >>> 16;
  const mid = aHi * bLo + ((aLo * bLo) >>> 16);
  const carry = (mid & 0xffff) + aLo * bHi;
  return (aHi * bHi + Math.floor(mid / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/**
 * Ten rounds of Philox4x32.
 * @param counter four unsigned 32-bit words
 * @param key two unsigned 32-bit words
 * @returns four unsigned 32-bit words
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const hi0 = mulHi(M0, c0), lo0 = Math.imul(M0, c0) >>> 0;
    const hi1 = mulHi(M1, c2), lo1 = Math.imul(M1, c2) >>> 0;
    c0 = (hi1 ^ c1 ^ k0) >>> 0;
    c1 = lo1;
    c2 = (hi0 ^ c3 ^ k1) >>> 0;
    c3 = lo0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * A uniform number in [0, 1) with 53 random bits for one position of one request.
 * @param seed the request's seed, a safe integer
 * @param position index of the token in the request's output
 */
export function uniformAt(seed: number, position: number): number {
  const hi = Math.floor(seed / 0x100000000) >>> 0;
  const [a, b] = philox4x32([position >>> 0, 0, 0, 0], [seed >>> 0, hi]);
  return ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
}

/** A stream of seeded random numbers for tests, workloads and random weights. */
export class Random {
  #key: readonly [number, number];
  #counter = 0;
  #buffer: number[] = [];

  constructor(seed: number) {
    this.#key = [seed >>> 0, Math.floor(seed / 0x100000000) >>> 0];
  }

  /** Uniform unsigned 32-bit integer. */
  uint32(): number {
    if (this.#buffer.length === 0) {
      const lo = this.#counter >>> 0;
      const hi = Math.floor(this.#counter / 0x100000000);
      this.#buffer = philox4x32([lo, hi, 1, 0], this.#key).reverse();
      this.#counter++;
    }
    return this.#buffer.pop()!;
  }

  /** Uniform in [0, 1) with 53 random bits. */
  uniform(): number {
    return ((this.uint32() >>> 5) * 67108864 + (this.uint32() >>> 6)) / 9007199254740992;
  }

  /** Uniform integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.uniform() * bound);
  }

  /** Standard normal (Box-Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Exponential with mean 1. */
  exponential(): number {
    return -Math.log(1 - this.uniform());
  }
}
