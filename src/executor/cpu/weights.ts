import type {
  CpuKernels,
  DecoderLayer,
  DecoderWeights,
  KernelAddress,
  Linear,
  PackedMatrix,
} from "../../../ffi/cpu_kernels/kernels.ts";
import { type DType, dtypeBytes } from "../../core/dtype.ts";
import type { ModelConfig } from "../../model/config.ts";
import { ropeTable } from "../../model/rope.ts";
import {
  allTensors,
  type DecoderSpec,
  type LayerSpec,
  type LinearSpec,
  numElements,
  type TensorSpec,
} from "../../model/structure.ts";
import { convertTensor, type TensorSource, tensorValues } from "../../model/tensor.ts";

/** Called with the progress in bytes of weights, in the type in which they are served. */
export type OnBytes = (bytes: { doneBytes: number; totalBytes: number }) => void;

function storedBytes(specs: readonly TensorSpec[], dtype: DType): number {
  return specs.reduce((sum, { shape }) => sum + numElements(shape) * dtypeBytes(dtype), 0);
}

/** Bytes that the weights of a model take in the kernels' memory. */
export function weightBytes(kernels: CpuKernels, spec: DecoderSpec, dtype: DType): number {
  return allTensors(spec).reduce((total, { shape }) => {
    const isMatrix = shape.length === 2;
    return total +
      (isMatrix ? kernels.packedBytes(dtype, shape[0], shape[1]) : numElements(shape) * 4);
  }, 0);
}

/**
 * Packs a model's weights for the kernels.
 * @param onBytes called with the progress
 * @throws {ModelError} a tensor is missing or has a wrong shape; all are checked before any is packed
 */
export function loadWeights(
  kernels: CpuKernels,
  source: TensorSource,
  config: ModelConfig,
  spec: DecoderSpec,
  dtype: DType,
  maxModelLen: number,
  onBytes: OnBytes,
): DecoderWeights {
  for (const tensor of allTensors(spec)) source.check(tensor);
  const totalBytes = storedBytes(allTensors(spec), dtype);
  const loader = new WeightLoader(kernels, source, dtype, totalBytes, onBytes);
  const embedding = loader.matrix([spec.embedding]);
  return {
    embedding,
    layers: spec.layers.map((layer) => loader.layer(layer)),
    finalNorm: loader.vector([spec.finalNorm]),
    lmHead: spec.lmHead === spec.embedding ? embedding : loader.matrix([spec.lmHead]),
    ropeTable: loader.store(ropeTable(config.rope, config.headDim, maxModelLen)),
  };
}

class WeightLoader {
  #doneBytes = 0;

  constructor(
    readonly kernels: CpuKernels,
    readonly source: TensorSource,
    readonly dtype: DType,
    readonly totalBytes: number,
    readonly onBytes: OnBytes,
  ) {}

  layer(spec: LayerSpec): DecoderLayer {
    return {
      inputNorm: this.vector([spec.inputNorm]),
      qkv: this.linear([spec.query, spec.key, spec.value]),
      queryNorm: spec.queryNorm ? this.vector([spec.queryNorm]) : 0n,
      keyNorm: spec.keyNorm ? this.vector([spec.keyNorm]) : 0n,
      output: this.linear([spec.output]),
      postAttentionNorm: this.vector([spec.postAttentionNorm]),
      gateUp: this.linear([spec.gate, spec.up]),
      down: this.linear([spec.down]),
    };
  }

  /** Linear layers of the same input, stacked along their outputs. All have a bias, or none has. */
  linear(specs: readonly LinearSpec[]): Linear {
    const biases = specs.flatMap(({ bias }) => bias ? [bias] : []);
    return {
      matrix: this.matrix(specs.map(({ weight }) => weight)),
      bias: biases.length > 0 ? this.vector(biases) : 0n,
    };
  }

  matrix(specs: readonly TensorSpec[]): PackedMatrix {
    const rows = specs.map((spec) => convertTensor(this.source.read(spec), this.dtype).bytes);
    const n = specs.reduce((sum, { shape }) => sum + shape[0], 0);
    const packed = this.kernels.pack(this.dtype, rows, n, specs[0].shape[1]);
    this.#report(specs);
    return packed;
  }

  /** Small tensors, one after the other, as float32. */
  vector(specs: readonly TensorSpec[]): KernelAddress {
    const parts = specs.map((spec) => tensorValues(this.source.read(spec), this.dtype));
    const values = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let offset = 0;
    for (const part of parts) {
      values.set(part, offset);
      offset += part.length;
    }
    this.#report(specs);
    return this.store(values);
  }

  store(values: Float32Array): KernelAddress {
    const address = this.kernels.alloc(values.byteLength);
    this.kernels.bytes(address, values.byteLength).set(new Uint8Array(values.buffer));
    return address;
  }

  #report(specs: readonly TensorSpec[]): void {
    this.#doneBytes += storedBytes(specs, this.dtype);
    this.onBytes({ doneBytes: this.#doneBytes, totalBytes: this.totalBytes });
  }
}
