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

/** Where a model's weights come from. */
export interface TensorSource {
  /** For progress messages: "3 safetensors files", "random weights (seed 0)". */
  readonly description: string;
  /** Throws a ModelError that names the tensor, unless it is there in this shape. */
  check(spec: TensorSpec): void;
  /** @throws {ModelError} as `check` */
  read(spec: TensorSpec): Tensor;
  /** Ends the source; tensors it gave out must not be used any more. */
  close(): void;
}

/** Bytes of a stored 16-bit float tensor as float32, or the float32 tensor itself. */
function widen(tensor: Tensor): Float32Array {
  const { buffer, byteOffset, byteLength } = tensor.bytes;
  const length = byteLength / dtypeBytes(tensor.dtype);
  switch (tensor.dtype) {
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

/** The tensor's elements in another type, rounded to nearest even; itself when it has that type. */
export function convertTensor(tensor: Tensor, dtype: DType): Tensor {
  if (tensor.dtype === dtype) return tensor;
  return { ...tensor, dtype, bytes: encodeFloats(widen(tensor), dtype) };
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
