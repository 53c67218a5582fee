import { elementBytes } from "../../../ffi/cuda_kernels/decoder_kernels.ts";
import type { DType } from "../../core/dtype.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { SliceLimits } from "../transformer/slices.ts";
import { sliceWords } from "../transformer/slices.ts";
import type { DeviceMemory } from "./device_memory.ts";
import { headRows, type RankOf } from "./weights.ts";

/**
 * Most rows that go through the model together; longer prompts are cut. More rows read the weights less
 * often; 1024 rows of an 8B model take 0.3 GB.
 */
const MAX_ROWS = 1024;
/** Most memory for logits; more rows take several rounds. */
const MAX_LOGITS_BYTES = 64 * 2 ** 20;
/** Most memory for parts of contexts that are computed apart; more are computed by one block each. */
const MAX_PARTIALS_BYTES = 64 * 2 ** 20;

/**
 * Addresses of what a slice computes on a device. Row-major; T is the type of the weights; heads, kvHeads and
 * intermediate are those of the device's rank. What the ranks compute parts of is there twice: the own part, and
 * all of it. With one rank the two are one.
 */
export interface Activations {
  readonly maxRows: number;
  /** Rows of {@linkcode logits}. */
  readonly maxLogitsRows: number;
  /** int32: see `SliceArrays`. */
  readonly slice: bigint;
  /** float32 [maxRows, hidden]: the sum of all layers so far. */
  readonly residual: bigint;
  /** float32 [maxRows, hidden / ranks] */
  readonly residualPart: bigint;
  /** T [maxRows + extraRows, hidden] */
  readonly normed: bigint;
  /** float32 [maxRows + extraRows, (heads + 2 kvHeads) headDim] */
  readonly qkv: bigint;
  /** T [maxRows + extraRows, heads headDim], and of all ranks. */
  readonly attended: bigint;
  readonly allAttended: bigint;
  /** float32 [maxRows + extraRows, 2 intermediate] */
  readonly gateUp: bigint;
  /** T [maxRows + extraRows, intermediate], and of all ranks. */
  readonly activated: bigint;
  readonly allActivated: bigint;
  /** int32 [maxLogitsRows]: rows whose logits are wanted, and the largest logits' tokens. */
  readonly indices: bigint;
  /** T [maxLogitsRows, hidden] */
  readonly normedRows: bigint;
  /** float32 [maxLogitsRows, outputs of the rank's head] */
  readonly logitsPart: bigint;
  /** float32 [maxLogitsRows, vocab]; 0n but on the first rank. */
  readonly logits: bigint;
  /** Room for the parts of all ranks of any of these, [ranks, rows, width]; 0n with one rank. */
  readonly gathered: bigint;
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

/** What a rank computes of a model: its heads, and its part of the feed-forward layer. */
export function configOfRank(config: ModelConfig, { ranks }: RankOf): ModelConfig {
  const { numHeads, numKvHeads, intermediateSize } = config;
  return {
    ...config,
    numHeads: numHeads / ranks,
    numKvHeads: numKvHeads / ranks,
    intermediateSize: intermediateSize / ranks,
  };
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
  rank: RankOf,
): Activations {
  const { ranks } = rank, { hiddenSize, vocabSize } = config;
  const { intermediateSize, numHeads, numKvHeads, headDim } = configOfRank(config, rank);
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
  const attendedBytes = rows * numHeads * headDim * narrow;
  const activatedBytes = rows * intermediateSize * narrow;
  const logitsBytes = maxLogitsRows * headRows(vocabSize, rank).count * 4;
  const residual = take(maxRows * hiddenSize * 4);
  const attended = take(attendedBytes), activated = take(activatedBytes);
  const logitsPart = take(logitsBytes);
  const isAlone = ranks === 1;
  const largest = Math.max(
    ...[maxRows * hiddenSize * 4 / ranks, attendedBytes, activatedBytes, logitsBytes],
  );
  return {
    maxRows,
    maxLogitsRows,
    slice: take(sliceWords(limits) * 4),
    residual,
    residualPart: isAlone ? residual : take(maxRows * hiddenSize * 4 / ranks),
    normed: take(rows * hiddenSize * narrow),
    qkv: take(rows * (numHeads + 2 * numKvHeads) * headDim * 4),
    attended,
    allAttended: isAlone ? attended : take(ranks * attendedBytes),
    gateUp: take(rows * 2 * intermediateSize * 4),
    activated,
    allActivated: isAlone ? activated : take(ranks * activatedBytes),
    indices: take(maxLogitsRows * 4),
    normedRows: take(maxLogitsRows * hiddenSize * narrow),
    logitsPart,
    logits: isAlone ? logitsPart : rank.rank === 0 ? take(maxLogitsRows * vocabSize * 4) : 0n,
    gathered: isAlone ? 0n : take(ranks * largest),
    partials: partialsBytes > 0 ? take(Math.min(partialsBytes, MAX_PARTIALS_BYTES)) : 0n,
    partialsBytes: Math.min(partialsBytes, MAX_PARTIALS_BYTES),
    counters: take(countersBytes),
  };
}
