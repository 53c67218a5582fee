/** Plain float64 versions of the kernels' operations, and arrays in the kernels' memory. */
import type { Random } from "../../src/core/random.ts";
import type { CpuKernels, KernelAddress, StorageType } from "../../ffi/cpu_kernels/kernels.ts";

/** Normally distributed numbers. */
export function normals(random: Random, count: number, scale = 1): Float32Array {
  return Float32Array.from({ length: count }, () => random.normal() * scale);
}

const oneFloat = new Float32Array(1), itsBits = new Uint32Array(oneFloat.buffer);

/** The nearest bfloat16, ties to even. */
export function roundToBfloat16(value: number): number {
  oneFloat[0] = value;
  itsBits[0] = (itsBits[0] + 0x7fff + ((itsBits[0] >>> 16) & 1)) & 0xffff0000;
  return oneFloat[0];
}

/** Values as a storage type holds them: the bytes, and what they mean. */
export interface Stored {
  readonly type: StorageType;
  readonly bytes: Uint8Array;
  readonly values: Float64Array;
}

export function asStored(type: StorageType, floats: Float32Array): Stored {
  if (type === "float32") {
    return { type, bytes: asBytes(floats), values: Float64Array.from(floats) };
  }
  if (type === "float16") {
    const halves = Float16Array.from(floats);
    return { type, bytes: asBytes(halves), values: Float64Array.from(halves) };
  }
  const values = Float64Array.from(floats, roundToBfloat16);
  const words = new Uint32Array(Float32Array.from(values).buffer);
  return { type, bytes: asBytes(Uint16Array.from(words, (word) => word >>> 16)), values };
}

export function asBytes(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Arrays in a kernel set's memory. */
export class Arrays {
  constructor(readonly kernels: CpuKernels) {}

  put(array: Float32Array | Int32Array | Uint8Array): KernelAddress {
    const address = this.kernels.alloc(array.byteLength);
    this.kernels.bytes(address, array.byteLength).set(asBytes(array));
    return address;
  }

  floats(address: KernelAddress, count: number): Float32Array {
    return new Float32Array(this.kernels.bytes(address, count * 4).slice().buffer);
  }

  integers(address: KernelAddress, count: number): Int32Array {
    return new Int32Array(this.kernels.bytes(address, count * 4).slice().buffer);
  }
}

/** Whether two arrays hold the same bits. */
export function sameBits(a: ArrayBufferView, b: ArrayBufferView): boolean {
  const [left, right] = [asBytes(a), asBytes(b)];
  return left.length === right.length && left.every((byte, i) => byte === right[i]);
}

/** ||actual - expected|| / ||expected||, in Euclid's norm; 0 when both are zero. NaN counts. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0, size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i] - expected[i]) ** 2;
    size += expected[i] ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / size);
}

/** x [m, k] W [n, k]^T + bias. */
export function matmul(
  x: ArrayLike<number>,
  weights: ArrayLike<number>,
  bias: ArrayLike<number> | null,
  m: number,
  n: number,
  k: number,
): Float64Array {
  const y = new Float64Array(m * n);
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) {
      let sum = bias === null ? 0 : bias[column];
      for (let i = 0; i < k; i++) sum += x[row * k + i] * weights[column * k + i];
      y[row * n + column] = sum;
    }
  }
  return y;
}

export function rmsnorm(x: ArrayLike<number>, weight: ArrayLike<number>, k: number, eps: number) {
  const y = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += k) {
    let squares = 0;
    for (let i = 0; i < k; i++) squares += x[row + i] ** 2;
    const scale = 1 / Math.sqrt(squares / k + eps);
    for (let i = 0; i < k; i++) y[row + i] = x[row + i] * scale * weight[i];
  }
  return y;
}

/** Softmax attention of one query over keys and values [tokens, headDim]. */
export function attend(
  query: ArrayLike<number>,
  keys: readonly ArrayLike<number>[],
  values: readonly ArrayLike<number>[],
  scale: number,
): Float64Array {
  const headDim = query.length;
  const scores = keys.map((key) => {
    let sum = 0;
    for (let d = 0; d < headDim; d++) sum += query[d] * key[d];
    return sum * scale;
  });
  const max = scores.reduce((a, b) => Math.max(a, b));
  const weights = scores.map((score) => Math.exp(score - max));
  const total = weights.reduce((a, b) => a + b);
  const out = new Float64Array(headDim);
  values.forEach((value, t) => {
    for (let d = 0; d < headDim; d++) out[d] += weights[t] / total * value[d];
  });
  return out;
}
