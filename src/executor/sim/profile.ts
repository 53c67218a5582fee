/**
 * The latency model of a simulated instance, which is Llumnix's: prefill is linear in tokens, decode
 * linear in sequences and in tokens. Beyond it, a prefill may have a square term, for the attention within a
 * prompt. A profile adds sizes and bandwidths.
 */
import type { DType } from "../../core/dtype.ts";

/**
 * Duration of a prefill step: `msPerSquaredToken * squares + msPerToken * tokens + msPerStep`, the tokens being
 * those of all prompts in the step, and the squares the sum of the squared lengths of its prompts.
 */
export interface PrefillLatency {
  /** Absent: 0, as in Llumnix. */
  readonly msPerSquaredToken?: number;
  readonly msPerToken: number;
  readonly msPerStep: number;
  /** Where the numbers come from. */
  readonly source: string;
}

/** Duration of a decode step: `msPerSequence * batch + msPerToken * total tokens + msPerStep`. */
export interface DecodeLatency {
  readonly msPerSequence: number;
  /** Per token in the contexts of all sequences together. */
  readonly msPerToken: number;
  readonly msPerStep: number;
  readonly source: string;
}

/** What a request takes outside of the instance: HTTP, text and tokens, dispatch, and the way back. */
export interface RequestLatency {
  readonly msPerRequest: number;
  readonly source: string;
}

export interface Bandwidth {
  /** 10^9 bytes per second. */
  readonly gbps: number;
  readonly source: string;
}

/** The options that the number of blocks of an instance depends on. */
export interface BlocksKey {
  /** `--gpu-memory-utilization` */
  readonly memoryUtilization: number;
  /** Tokens in a block. */
  readonly blockSize: number;
  /** `--max-num-batched-tokens`; null where the number of blocks holds for any. */
  readonly maxBatchedTokens: number | null;
}

export interface BlocksEntry extends BlocksKey {
  readonly numBlocks: number;
  readonly source: string;
}

/** The part of a model's structure that its KV cache depends on. */
export interface CacheShape {
  readonly dtype: DType;
  readonly numLayers: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Longest sequence in tokens, prompt and output. */
  readonly maxModelLen: number;
}

/** One model with one degree of tensor and pipeline parallelism on one kind of device. */
export interface ModelProfile {
  /** Name of the model: the base name of `--model`. */
  readonly model: string;
  readonly tensorParallelSize: number;
  readonly pipelineParallelSize: number;
  readonly shape: CacheShape;
  /** Counts are padded to a multiple of this, as the kernels of a device pad them. Default 8. */
  readonly alignment?: number;
  /** Prompts are computed in pieces of so many tokens at most, as on the CPU. Absent: they come whole. */
  readonly maxPieceTokens?: number;
  readonly prefill: PrefillLatency;
  readonly decode: DecodeLatency;
  /** Absent: nothing. Simulated clusters wait this long; a service on simulated devices has its own. */
  readonly request?: RequestLatency;
  readonly blocks: readonly BlocksEntry[];
  /** Between two instances. */
  readonly migration: Bandwidth;
  /** Between device and host memory. */
  readonly swap: Bandwidth;
}

/** That of Llumnix's simulator. */
const DEFAULT_ALIGNMENT = 8;

/** The least multiple of `alignment` that is not below `count`. */
export function padded(count: number, alignment = DEFAULT_ALIGNMENT): number {
  return Math.ceil(count / alignment) * alignment;
}

/**
 * Milliseconds of a prefill step.
 * @param tokens of all prompts in the step
 * @param squares sum of the squared lengths of its prompts, by default of one; of a later piece, what it adds
 */
export function prefillMs(
  { prefill, alignment }: Pick<ModelProfile, "prefill" | "alignment">,
  tokens: number,
  squares = tokens ** 2,
): number {
  const { msPerSquaredToken = 0, msPerToken, msPerStep } = prefill;
  return msPerSquaredToken * squares + msPerToken * padded(tokens, alignment) + msPerStep;
}

/** Milliseconds of all prefill steps of a prompt that is alone. */
export function promptMs(
  profile: Pick<ModelProfile, "prefill" | "alignment" | "maxPieceTokens">,
  tokens: number,
): number {
  const { maxPieceTokens = tokens } = profile;
  const numFull = Math.ceil(tokens / maxPieceTokens) - 1;
  // What the pieces add to the squares comes to the square of the prompt.
  return numFull * prefillMs(profile, maxPieceTokens, 0) +
    prefillMs(profile, tokens - numFull * maxPieceTokens, tokens ** 2);
}

/**
 * Milliseconds of a decode step.
 * @param batch sequences in the step
 * @param totalTokens in the contexts of all of them together
 */
export function decodeMs(
  { decode, alignment }: Pick<ModelProfile, "decode" | "alignment">,
  batch: number,
  totalTokens: number,
): number {
  return decode.msPerSequence * padded(batch, alignment) +
    decode.msPerToken * padded(totalTokens, alignment) + decode.msPerStep;
}

/** Milliseconds that copying `byteLength` bytes takes, in a migration or a swap. */
export function transferMs({ gbps }: Bandwidth, byteLength: number): number {
  return byteLength / (gbps * 1e6);
}
