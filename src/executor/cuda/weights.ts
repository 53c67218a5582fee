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

/** One of the devices that a model is divided among: each has some outputs of every linear layer. */
export interface RankOf {
  readonly rank: number;
  readonly ranks: number;
}

const WHOLE: RankOf = { rank: 0, ranks: 1 };

/** Rows of a tensor that a device has: of a matrix, or elements of a vector. */
interface TensorRows {
  readonly spec: TensorSpec;
  readonly first: number;
  readonly count: number;
}

/** Rows of tensors that follow each other at an address, as matrices of the model's type or as float32 vectors. */
interface Piece {
  readonly tensors: readonly TensorRows[];
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
 * Outputs of the head that a device computes: equal numbers, so the last two parts overlap if `vocabSize` cannot be
 * divided.
 */
export function headRows(
  vocabSize: number,
  { rank, ranks }: RankOf,
): { first: number; count: number } {
  const count = Math.ceil(vocabSize / ranks);
  return { first: Math.min(rank * count, vocabSize - count), count };
}

/**
 * Plans the weights at an address. Of linear layers a device has the outputs of its rank; all else is whole.
 * @param quantization of the linear layers
 */
export function planWeights(
  config: ModelConfig,
  dtype: DType,
  maxModelLen: number,
  address: bigint,
  quantization: EngineOptions["quantization"] = null,
  rank: RankOf = WHOLE,
): WeightPlan {
  const planner = new Planner(config, dtype, address, quantization !== null, rank);
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
    readonly rank: RankOf,
  ) {}

  weights(spec: DecoderSpec, maxModelLen: number): CudaWeights {
    const { headDim, hiddenSize, vocabSize } = this.config;
    const embedding = this.#matrix([whole(spec.embedding)]);
    const layers = spec.layers.map((layer) => this.#layer(layer));
    const finalNorm = this.#vector([spec.finalNorm]);
    const { first, count } = headRows(vocabSize, this.rank);
    const lmHead = spec.lmHead === spec.embedding
      ? embedding + BigInt(first * hiddenSize * elementBytes[this.dtype])
      : this.#matrix([{ spec: spec.lmHead, first, count }]);
    return {
      embedding,
      layers,
      finalNorm,
      lmHead: { weights: lmHead, bias: 0n, outputs: count, inputs: hiddenSize },
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
    const biases = specs.flatMap(({ bias }) => bias ? [this.#share(bias)] : []);
    const matrices = specs.map(({ weight }) => this.#share(weight));
    return {
      ...(this.isQuantized
        ? this.#quantizedMatrix(matrices)
        : { weights: this.#matrix(matrices), scales: 0n }),
      bias: biases.length > 0 ? this.#rows(biases, true) : 0n,
      outputs: outputsOf(matrices),
      inputs: matrices[0].spec.shape[1],
    };
  }

  /** The rows of the rank, which follow each other: whole heads of a query, key or value. */
  #share(spec: TensorSpec): TensorRows {
    const { rank, ranks } = this.rank, count = spec.shape[0] / ranks;
    return { spec, first: rank * count, count };
  }

  #quantizedMatrix(tensors: readonly TensorRows[]): { weights: bigint; scales: bigint } {
    const weights = this.#take(elements(tensors)), scales = this.#take(outputsOf(tensors) * 4);
    this.pieces.push({ tensors, address: weights, isVector: false, scales });
    return { weights, scales };
  }

  #matrix(tensors: readonly TensorRows[]): bigint {
    return this.#rows(tensors, false);
  }

  #vector(specs: readonly TensorSpec[]): bigint {
    return this.#rows(specs.map(whole), true);
  }

  #rows(tensors: readonly TensorRows[], isVector: boolean): bigint {
    const bytes = isVector ? 4 : elementBytes[this.dtype];
    const address = this.#take(elements(tensors) * bytes);
    this.pieces.push({ tensors, address, isVector, scales: 0n });
    return address;
  }

  #take(byteLength: number): bigint {
    const address = this.address + BigInt(this.byteLength);
    this.byteLength += Math.ceil(byteLength / alignment) * alignment;
    return address;
  }
}

function whole(spec: TensorSpec): TensorRows {
  return { spec, first: 0, count: spec.shape[0] };
}

/** Elements of a row. */
function widthOf({ shape }: TensorSpec): number {
  return numElements(shape) / shape[0];
}

function elements(tensors: readonly TensorRows[]): number {
  return tensors.reduce((sum, { spec, count }) => sum + count * widthOf(spec), 0);
}

function outputsOf(matrices: readonly TensorRows[]): number {
  return matrices.reduce((sum, { count }) => sum + count, 0);
}

/** Called with the progress in bytes of weights, in the type in which they are served. */
export type OnBytes = (bytes: { doneBytes: number; totalBytes: number }) => void;

/** A device that gets its share of the weights. */
export interface WeightTarget {
  readonly plan: WeightPlan;
  /** To the device. */
  readonly uploads: Uploads;
  /** For plans with `quantization`. */
  readonly quantizer: Quantizer | null;
}

/**
 * Writes a model's weights to its devices. Each tensor is read and converted once.
 * @param targets the devices, by rank; their plans are of the same model
 * @param onTarget is called before anything is done on a device
 * @throws {ModelError} a tensor is missing or has a wrong shape; all are checked before any is written
 */
export function uploadWeights(
  targets: readonly WeightTarget[],
  source: TensorSource,
  config: ModelConfig,
  dtype: DType,
  maxModelLen: number,
  onBytes: OnBytes,
  onTarget: (rank: number) => void,
): void {
  const tensors = allTensors(decoderSpec(config));
  for (const tensor of tensors) source.check(tensor);
  const totalBytes = tensors.reduce((sum, { shape }) => sum + numElements(shape), 0) *
    elementBytes[dtype];
  let doneBytes = 0;
  const [{ plan: { pieces } }] = targets;
  pieces.forEach(({ tensors, isVector, scales }, index) => {
    // Where the next rows go, by rank.
    const next = targets.map(({ plan }) => ({
      at: plan.pieces[index].address,
      scalesAt: plan.pieces[index].scales,
    }));
    tensors.forEach(({ spec }, i) => {
      const isScaled = scales !== 0n;
      const read = isScaled
        ? scaledRows(source, spec, dtype)
        : rowsOf(source, spec, dtype, isVector);
      targets.forEach((target, rank) => {
        onTarget(rank);
        const { first, count } = target.plan.pieces[index].tensors[i];
        const { at, scalesAt } = next[rank];
        read(target, first, count, at, scalesAt);
        const bytes = isScaled ? 1 : isVector ? 4 : elementBytes[dtype];
        next[rank] = {
          at: at + BigInt(count * widthOf(spec) * bytes),
          scalesAt: scalesAt + BigInt(count * 4),
        };
      });
      doneBytes += numElements(spec.shape) * elementBytes[dtype];
      onBytes({ doneBytes, totalBytes });
    });
  });
  const table = bytesOf(ropeTable(config.rope, config.headDim, maxModelLen));
  targets.forEach(({ plan, uploads }, rank) => {
    onTarget(rank);
    uploads.write(plan.weights.ropeTable, table);
    uploads.finish();
  });
}

/** Writes rows of a tensor to a device; `scales` is for matrices in 8 bits. */
type WriteRows = (
  target: WeightTarget,
  first: number,
  count: number,
  at: bigint,
  scales: bigint,
) => void;

function rowsOf(
  source: TensorSource,
  spec: TensorSpec,
  dtype: DType,
  isVector: boolean,
): WriteRows {
  const tensor = source.read(spec);
  const bytes = isVector
    ? bytesOf(tensorValues(tensor, dtype))
    : convertTensor(tensor, dtype).bytes;
  const rowBytes = bytes.length / spec.shape[0];
  return ({ uploads }, first, count, at) =>
    uploads.write(at, bytes.subarray(first * rowBytes, (first + count) * rowBytes));
}

/** Of a matrix in 8 bits: as it is stored, or rounded, as many rows at a time as there is room for. */
function scaledRows(source: TensorSource, spec: TensorSpec, dtype: DType): WriteRows {
  const stored = source.readScaled?.(spec) ?? null, inputs = widthOf(spec);
  if (stored !== null) {
    return ({ uploads }, first, count, at, scales) => {
      const end = first + count;
      uploads.write(at, stored.codes.subarray(first * inputs, end * inputs));
      uploads.write(scales, bytesOf(stored.scales.subarray(first, end)));
    };
  }
  const { bytes } = convertTensor(source.read(spec), dtype),
    rowBytes = bytes.length / spec.shape[0];
  return ({ uploads, quantizer }, first, count, at, scales) => {
    const { kernels, staging, stagingBytes } = quantizer!;
    const most = Math.floor(stagingBytes / rowBytes);
    for (let done = 0; done < count; done += most) {
      const rows = Math.min(most, count - done), from = (first + done) * rowBytes;
      uploads.write(staging, bytes.subarray(from, from + rows * rowBytes));
      const [to, scaleOf] = [at + BigInt(done * inputs), scales + BigInt(done * 4)];
      kernels.quantizeRows(staging, to, scaleOf, rows, inputs);
    }
  };
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
