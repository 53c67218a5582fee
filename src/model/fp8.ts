/** Numbers of 8 bits (e4m3), as the kernels of `ffi/cuda_kernels/fp8.h` round them. */
import type { DecoderSpec, TensorSpec } from "./structure.ts";
import { type ScaledTensor, type Tensor, type TensorSource, tensorValues } from "./tensor.ts";

const largest = 448;

const bits = new Uint32Array(1), float = new Float32Array(bits.buffer);

/** The code of the nearest number to a float32, ties to even; of 448 where that is too small. */
export function toE4m3(value: number): number {
  float[0] = value;
  const sign = bits[0] >>> 24 & 0x80, size = Math.abs(value);
  if (Number.isNaN(value)) return sign | 0x7f;
  if (size >= largest) return sign | 0x7e;
  // Neighbours differ in the third bit of the mantissa, and below 2^-6, the smallest normal number, by 2^-9.
  const exponent = Math.max((bits[0] >>> 23 & 0xff) - 127, -6);
  const steps = size / 2 ** (exponent - 3), down = Math.floor(steps), rest = steps - down;
  const isUp = rest > 0.5 || (rest === 0.5 && down % 2 === 1);
  return sign | (exponent + 6 << 3) + down + (isUp ? 1 : 0);
}

/** The number of each code. */
export const e4m3Values: readonly number[] = Array.from({ length: 256 }, (_, code) => {
  const sign = code < 0x80 ? 1 : -1, exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 0x7f) === 0x7f) return NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10));
});

/** The codes of NaN. */
export const nanCodes = [0x7f, 0xff] as const;

/** A matrix in float32. */
export function widenScaled({ name, shape }: TensorSpec, { codes, scales }: ScaledTensor): Tensor {
  const inputs = codes.length / scales.length, values = new Float32Array(codes.length);
  scales.forEach((scale, row) => {
    for (let i = row * inputs; i < (row + 1) * inputs; i++) {
      values[i] = e4m3Values[codes[i]] * scale;
    }
  });
  return { name, dtype: "float32", shape, bytes: new Uint8Array(values.buffer) };
}

/** A row of weights by `--quantization fp8`: see fp8_weights.cu. */
export function quantizeRow(row: Float32Array): { codes: Uint8Array; scale: number } {
  const most = row.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const scale = most === 0 ? 1 : Math.fround(most / largest);
  return { codes: Uint8Array.from(row, (value) => toE4m3(Math.fround(value / scale))), scale };
}

/** Weights as `--quantization fp8` rounds them, in float32: a model to compare with, on any device. */
export class RoundedWeights implements TensorSource {
  readonly #source: TensorSource;
  readonly #linear: ReadonlySet<string>;

  constructor(source: TensorSource, spec: DecoderSpec) {
    this.#source = source;
    this.#linear = new Set(
      spec.layers.flatMap(({ query, key, value, output, gate, up, down }) =>
        [query, key, value, output, gate, up, down].map(({ weight }) => weight.name)
      ),
    );
  }

  get description(): string {
    return `${this.#source.description}, rounded to 8 bits`;
  }

  check(spec: TensorSpec): void {
    this.#source.check(spec);
  }

  read(spec: TensorSpec): Tensor {
    const tensor = this.#source.read(spec);
    const isRounded = (this.#source.readScaled?.(spec) ?? null) !== null;
    if (isRounded || !this.#linear.has(spec.name)) return tensor;
    const values = Float32Array.from(tensorValues(tensor, tensor.dtype)),
      [rows, inputs] = spec.shape;
    for (let row = 0; row < rows; row++) {
      const rounded = values.subarray(row * inputs, (row + 1) * inputs);
      const { codes, scale } = quantizeRow(rounded);
      codes.forEach((code, i) => rounded[i] = e4m3Values[code] * scale);
    }
    return { ...tensor, dtype: "float32", bytes: new Uint8Array(values.buffer) };
  }

  close(): void {
    this.#source.close();
  }
}
