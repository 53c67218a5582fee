/** Where the weights of a model lie in the memory of a device, and how they come there. */
import {
  type DecoderKernels,
  elementBytes,
  type HeadNorms,
  type LinearLayer,
} from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { DType } from "../../core/dtype.ts";
import type { EngineOptions } from "../../core/options.ts";
import type { ModelConfig } from "../../model/config.ts";
import { ropeTable } from "../../model/rope.ts";
import {
  allTensors,
  type DecoderSpec,
  decoderSpec,
  type LayerSpec,
  type LinearSpec,
  numElements,
  type TensorSpec,
} from "../../model/structure.ts";
import { convertTensor, type TensorSource, tensorValues } from "../../model/tensor.ts";
import type { Uploads } from "./uploads.ts";

/** Addresses of a layer's weights; norms are float32 vectors. */
export interface CudaLayer {
  readonly inputNorm: bigint;
  /** Query, key and value stacked along their outputs. */
  readonly qkv: LinearLayer;
  readonly headNorms: HeadNorms;
  readonly output: LinearLayer;
  readonly postAttentionNorm: bigint;
  /** Gate and up stacked. */
  readonly gateUp: LinearLayer;
  readonly down: LinearLayer;
}

export interface CudaWeights {
  /** [vocab, hidden] */
  readonly embedding: bigint;
  readonly layers: readonly CudaLayer[];
  readonly finalNorm: bigint;
  readonly lmHead: LinearLayer;
  /** float32 [maxModelLen, headDim]: see `ropeTable` of src/model. */
  readonly ropeTable: bigint;
}

/** Tensors that follow each other at an address, as matrices of the model's type or as float32 vectors. */
interface Piece {
  readonly specs: readonly TensorSpec[];
  readonly address: bigint;
  readonly isVector: boolean;
  /** Address of the scales of a matrix in 8 bits; 0n: it is not one. */
  readonly scales: bigint;
}

/** A plan of all weights in one allocation. */
export interface WeightPlan {
  readonly weights: CudaWeights;
  readonly byteLength: number;
  readonly pieces: readonly Piece[];
}

/** What rounds matrices to 8 bits, on the device. */
export interface Quantizer {
  readonly kernels: DecoderKernels;
  /** Room for some rows of a matrix in the model's type; all work on it is of one stream. */
  readonly staging: bigint;
  readonly stagingBytes: number;
}

/** Every tensor begins at a multiple of this, like an allocation. */
const alignment = 256;

/**
 * Plans the weights at an address.
 * @param quantization of the linear layers
 */
export function planWeights(
  config: ModelConfig,
  dtype: DType,
  maxModelLen: number,
  address: bigint,
  quantization: EngineOptions["quantization"] = null,
): WeightPlan {
  const planner = new Planner(config, dtype, address, quantization !== null);
  const spec = decoderSpec(config);
  const weights = planner.weights(spec, maxModelLen);
  return { weights, byteLength: planner.byteLength, pieces: planner.pieces };
}

class Planner {
  readonly pieces: Piece[] = [];
  byteLength = 0;

  constructor(
    readonly config: ModelConfig,
    readonly dtype: DType,
    readonly address: bigint,
    readonly isQuantized: boolean,
  ) {}

  weights(spec: DecoderSpec, maxModelLen: number): CudaWeights {
    const { headDim, hiddenSize, vocabSize } = this.config;
    const embedding = this.#matrix([spec.embedding]);
    const layers = spec.layers.map((layer) => this.#layer(layer));
    const finalNorm = this.#vector([spec.finalNorm]);
    const isTied = spec.lmHead === spec.embedding;
    const lmHead = isTied ? embedding : this.#matrix([spec.lmHead]);
    return {
      embedding,
      layers,
      finalNorm,
      lmHead: { weights: lmHead, bias: 0n, outputs: vocabSize, inputs: hiddenSize },
      ropeTable: this.#take(maxModelLen * headDim * 4),
    };
  }

  #layer(spec: LayerSpec): CudaLayer {
    return {
      inputNorm: this.#vector([spec.inputNorm]),
      qkv: this.#linear([spec.query, spec.key, spec.value]),
      headNorms: {
        query: spec.queryNorm ? this.#vector([spec.queryNorm]) : 0n,
        key: spec.keyNorm ? this.#vector([spec.keyNorm]) : 0n,
        epsilon: this.config.rmsNormEps,
      },
      output: this.#linear([spec.output]),
      postAttentionNorm: this.#vector([spec.postAttentionNorm]),
      gateUp: this.#linear([spec.gate, spec.up]),
      down: this.#linear([spec.down]),
    };
  }

  /** Linear layers of the same input, stacked. All have a bias, or none has. */
  #linear(specs: readonly LinearSpec[]): LinearLayer {
    const biases = specs.flatMap(({ bias }) => bias ? [bias] : []);
    const matrices = specs.map(({ weight }) => weight);
    return {
      ...(this.isQuantized
        ? this.#quantizedMatrix(matrices)
        : { weights: this.#matrix(matrices), scales: 0n }),
      bias: biases.length > 0 ? this.#vector(biases) : 0n,
      outputs: outputsOf(matrices),
      inputs: matrices[0].shape[1],
    };
  }

  #quantizedMatrix(specs: readonly TensorSpec[]): { weights: bigint; scales: bigint } {
    const weights = this.#take(elements(specs)), scales = this.#take(outputsOf(specs) * 4);
    this.pieces.push({ specs, address: weights, isVector: false, scales });
    return { weights, scales };
  }

  #matrix(specs: readonly TensorSpec[]): bigint {
    const address = this.#take(elements(specs) * elementBytes[this.dtype]);
    this.pieces.push({ specs, address, isVector: false, scales: 0n });
    return address;
  }

  #vector(specs: readonly TensorSpec[]): bigint {
    const address = this.#take(elements(specs) * 4);
    this.pieces.push({ specs, address, isVector: true, scales: 0n });
    return address;
  }

  #take(byteLength: number): bigint {
    const address = this.address + BigInt(this.byteLength);
    this.byteLength += Math.ceil(byteLength / alignment) * alignment;
    return address;
  }
}

function elements(specs: readonly TensorSpec[]): number {
  return specs.reduce((sum, { shape }) => sum + numElements(shape), 0);
}

function outputsOf(matrices: readonly TensorSpec[]): number {
  return matrices.reduce((sum, { shape }) => sum + shape[0], 0);
}

/** Called with the progress in bytes of weights, in the type in which they are served. */
export type OnBytes = (bytes: { doneBytes: number; totalBytes: number }) => void;

/**
 * Writes a model's weights to the device.
 * @param quantizer for plans with `quantization`
 * @throws {ModelError} a tensor is missing or has a wrong shape; all are checked before any is written
 */
export function uploadWeights(
  uploads: Uploads,
  source: TensorSource,
  plan: WeightPlan,
  config: ModelConfig,
  dtype: DType,
  maxModelLen: number,
  onBytes: OnBytes,
  quantizer: Quantizer | null = null,
): void {
  const tensors = allTensors(decoderSpec(config));
  for (const tensor of tensors) source.check(tensor);
  const totalBytes = elements(tensors) * elementBytes[dtype];
  let doneBytes = 0;
  for (const { specs, address, isVector, scales } of plan.pieces) {
    let at = address, scalesAt = scales;
    for (const spec of specs) {
      if (scales === 0n) {
        const tensor = source.read(spec);
        const bytes = isVector
          ? bytesOf(tensorValues(tensor, dtype))
          : convertTensor(tensor, dtype).bytes;
        uploads.write(at, bytes);
        at += BigInt(bytes.length);
      } else {
        uploadScaled(uploads, source, spec, dtype, quantizer!, at, scalesAt);
        at += BigInt(numElements(spec.shape));
        scalesAt += BigInt(spec.shape[0] * 4);
      }
      doneBytes += numElements(spec.shape) * elementBytes[dtype];
      onBytes({ doneBytes, totalBytes });
    }
  }
  uploads.write(
    plan.weights.ropeTable,
    bytesOf(ropeTable(config.rope, config.headDim, maxModelLen)),
  );
  uploads.finish();
}

/** A matrix in 8 bits: as it is stored, or rounded, as many rows at a time as there is room for. */
function uploadScaled(
  uploads: Uploads,
  source: TensorSource,
  spec: TensorSpec,
  dtype: DType,
  { kernels, staging, stagingBytes }: Quantizer,
  codes: bigint,
  scales: bigint,
): void {
  const stored = source.readScaled?.(spec) ?? null;
  if (stored !== null) {
    uploads.write(codes, stored.codes);
    uploads.write(scales, bytesOf(stored.scales));
    return;
  }
  const { bytes } = convertTensor(source.read(spec), dtype), [rows, inputs] = spec.shape;
  const rowBytes = bytes.length / rows, most = Math.floor(stagingBytes / rowBytes);
  for (let row = 0; row < rows; row += most) {
    const count = Math.min(most, rows - row);
    uploads.write(staging, bytes.subarray(row * rowBytes, (row + count) * rowBytes));
    const [to, scaleOf] = [codes + BigInt(row * inputs), scales + BigInt(row * 4)];
    kernels.quantizeRows(staging, to, scaleOf, count, inputs);
  }
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
