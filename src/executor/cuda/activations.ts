import { elementBytes } from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { DType } from "../../core/dtype.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { SliceLimits } from "../transformer/slices.ts";
import { sliceWords } from "../transformer/slices.ts";
import type { DeviceMemory } from "./device_memory.ts";

/**
 * Most rows that go through the model together; longer prompts are cut. More rows read the weights less
 * often; 1024 rows of an 8B model take 0.3 GB.
 */
const MAX_ROWS = 1024;
/** Most memory for logits; more rows take several rounds. */
const MAX_LOGITS_BYTES = 64 * 2 ** 20;
/** Most memory for parts of contexts that are computed apart; more are computed by one block each. */
const MAX_PARTIALS_BYTES = 64 * 2 ** 20;

/** Addresses of what a slice computes on the device. Row-major; T is the type of the weights. */
export interface Activations {
  readonly maxRows: number;
  /** Rows of {@linkcode logits}. */
  readonly maxLogitsRows: number;
  /** int32: see `SliceArrays`. */
  readonly slice: bigint;
  /** float32 [maxRows, hidden]: the sum of all layers so far. */
  readonly residual: bigint;
  /** T [maxRows + extraRows, hidden] */
  readonly normed: bigint;
  /** float32 [maxRows + extraRows, (heads + 2 kvHeads) headDim] */
  readonly qkv: bigint;
  /** T [maxRows + extraRows, heads headDim] */
  readonly attended: bigint;
  /** float32 [maxRows + extraRows, 2 intermediate] */
  readonly gateUp: bigint;
  /** T [maxRows + extraRows, intermediate] */
  readonly activated: bigint;
  /** int32 [maxLogitsRows]: rows whose logits are wanted, and the largest logits' tokens. */
  readonly indices: bigint;
  /** T [maxLogitsRows, hidden] */
  readonly normedRows: bigint;
  /** float32 [maxLogitsRows, vocab] */
  readonly logits: bigint;
  /** Parts of contexts: see attention.cu. */
  readonly partials: bigint;
  readonly partialsBytes: number;
  /** uint32, zeros: see decode_attention.cu. */
  readonly counters: bigint;
}

/** Rows of a slice under these options. */
export function rowsOfSlice(maxModelLen: number, maxNumSeqs: number): number {
  return Math.min(MAX_ROWS, Math.max(maxModelLen, maxNumSeqs));
}

/**
 * @param extraRows behind `maxRows`, which kernels may fill with anything
 * @param partialsBytes that attention can use
 * @param countersBytes that attention needs; they are not zero yet
 * @throws {UsageError} the device has too little memory
 */
export function allocateActivations(
  memory: DeviceMemory,
  config: ModelConfig,
  dtype: DType,
  limits: SliceLimits,
  extraRows: number,
  partialsBytes: number,
  countersBytes: number,
): Activations {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim, vocabSize } = config;
  const { maxRows } = limits, rows = maxRows + extraRows;
  const narrow = elementBytes[dtype];
  const maxLogitsRows = Math.max(
    1,
    Math.min(maxRows, Math.floor(MAX_LOGITS_BYTES / (vocabSize * 4))),
  );
  const take = (byteLength: number) =>
    memory.allocate(
      byteLength,
      "activations",
      "Use a smaller model, or free memory of the device.",
    );
  return {
    maxRows,
    maxLogitsRows,
    slice: take(sliceWords(limits) * 4),
    residual: take(maxRows * hiddenSize * 4),
    normed: take(rows * hiddenSize * narrow),
    qkv: take(rows * (numHeads + 2 * numKvHeads) * headDim * 4),
    attended: take(rows * numHeads * headDim * narrow),
    gateUp: take(rows * 2 * intermediateSize * 4),
    activated: take(rows * intermediateSize * narrow),
    indices: take(maxLogitsRows * 4),
    normedRows: take(maxLogitsRows * hiddenSize * narrow),
    logits: take(maxLogitsRows * vocabSize * 4),
    partials: partialsBytes > 0 ? take(Math.min(partialsBytes, MAX_PARTIALS_BYTES)) : 0n,
    partialsBytes: Math.min(partialsBytes, MAX_PARTIALS_BYTES),
    counters: take(countersBytes),
  };
}
