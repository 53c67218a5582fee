import { type DType, dtypeBytes } from "../core/dtype.ts";
import { ModelError } from "../core/errors.ts";
import type { TensorSpec } from "./structure.ts";

/** A weight tensor, row-major little-endian. `bytes` may view a mapped file: do not write to it. */
export interface Tensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Aligned to the element size. */
  readonly bytes: Uint8Array;
}

/** A matrix in 8 bits (e4m3, see fp8.ts): a weight is its code's number times its row's scale. */
export interface ScaledTensor {
  /** [rows, columns] */
  readonly codes: Uint8Array;
  /** [rows] */
  readonly scales: Float32Array<ArrayBuffer>;
}

/** A source of weights: files, or random numbers. */
export interface TensorSource {
  /** For progress messages: "3 safetensors files", "random weights (seed 0)". */
  readonly description: string;
  /** Throws a ModelError that names the tensor, unless it is there in this shape. */
  check(spec: TensorSpec): void;
  /**
   * Tensors that are stored in 8 bits come in float32.
   * @throws {ModelError} as `check`
   */
  read(spec: TensorSpec): Tensor;
  /**
   * A matrix as it is stored, if that is in 8 bits; else null. Default: none is.
   * @throws {ModelError} as `check`
   */
  readScaled?(spec: TensorSpec): ScaledTensor | null;
  /** Closes the source; its tensors must not be used afterwards. */
  close(): void;
}

/** Elements of a stored tensor as float32. */
function widen(dtype: DType, bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  const length = byteLength / dtypeBytes(dtype);
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer, byteOffset, length);
    case "float16":
      return new Float32Array(new Float16Array(buffer, byteOffset, length));
    case "bfloat16": {
      const narrow = new Uint16Array(buffer, byteOffset, length);
      const bits = new Uint32Array(length);
      for (let i = 0; i < length; i++) bits[i] = narrow[i] << 16;
      return new Float32Array(bits.buffer);
    }
  }
}

/** float32 to bfloat16 bits, rounded to nearest even; NaN stays NaN. */
export function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const result = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i];
    result[i] = (b & 0x7fffffff) > 0x7f800000
      ? (b >>> 16) | 0x40
      : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return result;
}

/** Elements converted at a time, so that a large tensor needs no second copy in float32. */
const chunkElements = 1 << 20;

/** The tensor's elements in another type, rounded to nearest even; itself when it has that type. */
export function convertTensor(tensor: Tensor, dtype: DType): Tensor {
  if (tensor.dtype === dtype) return tensor;
  const from = dtypeBytes(tensor.dtype), to = dtypeBytes(dtype);
  const length = tensor.bytes.length / from;
  const bytes = new Uint8Array(length * to);
  for (let start = 0; start < length; start += chunkElements) {
    const end = Math.min(length, start + chunkElements);
    const values = widen(tensor.dtype, tensor.bytes.subarray(start * from, end * from));
    bytes.set(encodeFloats(values, dtype), start * to);
  }
  return { ...tensor, dtype, bytes };
}

/** The elements of a small tensor as float32, after rounding them to `dtype`. */
export function tensorValues(tensor: Tensor, dtype: DType): Float32Array {
  return widen(dtype, convertTensor(tensor, dtype).bytes);
}

/** float32 values as stored elements of `dtype`. */
export function encodeFloats(values: Float32Array, dtype: DType): Uint8Array {
  const encoded = dtype === "float32"
    ? values
    : dtype === "float16"
    ? new Float16Array(values)
    : toBfloat16(values);
  return new Uint8Array(encoded.buffer, encoded.byteOffset, encoded.byteLength);
}

/** Throws unless the shapes are equal. */
export function expectShape(spec: TensorSpec, found: readonly number[], where: string): void {
  const equal = found.length === spec.shape.length && found.every((n, i) => n === spec.shape[i]);
  if (equal) return;
  throw new ModelError(
    `Tensor ${spec.name} in ${where} has shape [${found.join(", ")}]; config.json implies ` +
      `[${spec.shape.join(", ")}]. The weights and config.json are not of the same model.`,
  );
}
