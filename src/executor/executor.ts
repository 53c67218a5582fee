/**
 * An executor holds a model and its KV cache and runs engine steps. The scheduler decides what a
 * step contains; the executor knows nothing of requests, queues or time.
 */
import type { ErrorRecord } from "../core/errors.ts";
import type { SamplingParams, TokenLogprobs } from "../core/protocol/generate.ts";
import type { EngineOptions } from "../core/options.ts";
import type { KvLayout } from "../kv/layout.ts";

/** What the scheduler needs to know of a loaded executor. */
export interface ExecutorInfo {
  /** For people: "cpu (avx512bf16, 2 threads)". */
  readonly description: string;
  /** What the model is known by: see `modelIdentity`. */
  readonly model: string;
  readonly dtype: string;
  readonly vocabSize: number;
  /** Longest sequence in tokens that the model and the options allow. */
  readonly maxModelLen: number;
  readonly layout: KvLayout;
  readonly numBlocks: number;
  /** Blocks of the host swap pool. */
  readonly numSwapBlocks: number;
  /**
   * Address of block 0 in this process, for transfers; null when the pool is not directly
   * addressable. Block i starts at `poolAddress + i * blockBytes(layout)`.
   */
  readonly poolAddress: bigint | null;
  /**
   * It computes nothing and has no cache: the `tokenIds` and `blockTables` of its steps are empty,
   * for writing them takes longer than all the rest. Default false.
   */
  readonly hasNoCache?: boolean;
  /**
   * Most tokens of a prompt that one step may compute; longer prompts come in pieces. Absent: prompts
   * come whole.
   */
  readonly maxPieceTokens?: number;
  /** What a step may take besides for each of its tokens, until it hangs. Default 0. */
  readonly tokenTimeoutMs?: number;
}

/** Announces a sequence to the executor's sampler before its first step (and after it moved in). */
export interface SequenceStart {
  /** Small integer that names the sequence until it is in `removed`. */
  readonly handle: number;
  readonly params: SamplingParams;
  readonly promptTokenIds: readonly number[];
  readonly outputTokenIds: readonly number[];
}

/**
 * One step over a ragged batch of n sequences: `tokenIds` holds for each sequence the tokens whose
 * keys and values are not in the cache yet. The KV of sequence i's tokens so far is in the blocks
 * `blockTables[i * maxBlocks ...]`; the token at position p lives in table entry
 * `floor(p / blockSize)`, slot `p % blockSize`. Block copies run before anything else, in the order
 * swap out, swap in, pair by pair. At least one sequence is in every step. The arrays are the
 * caller's and stay as they are until the step's promise settles.
 */
export interface StepInput {
  readonly stepId: number;
  readonly kind: "prefill" | "decode";
  /**
   * The only sequence of the step has more of its prompt to come: no token is chosen, and the output
   * has -1 in its place. Only for executors with `maxPieceTokens`; default false.
   */
  readonly isPartial?: boolean;
  /** Sampler state to drop; handled before `added`. */
  readonly removed: readonly number[];
  readonly added: readonly SequenceStart[];
  /** Pairs [device block, swap block]. */
  readonly swapOut: Int32Array;
  /** Pairs [swap block, device block]. */
  readonly swapIn: Int32Array;
  /** [n] sequence handles. */
  readonly handles: Int32Array;
  /** [tokens] */
  readonly tokenIds: Int32Array;
  /** [n + 1] first row of each sequence in `tokenIds`, and the total. */
  readonly queryStarts: Int32Array;
  /** [n] tokens of each sequence including this step's. */
  readonly contextLens: Int32Array;
  /** [n, maxBlocks] */
  readonly blockTables: Int32Array;
  readonly maxBlocks: number;
}

/** What a step produced. */
export interface StepOutput {
  readonly stepId: number;
  /** [n] one sampled token per sequence; valid until the next step. */
  readonly tokenIds: Int32Array;
  /** [n] entries for sequences that asked for log probabilities; absent when none did. */
  readonly logprobs?: readonly (TokenLogprobs | null)[];
  /** [n] per prompt token of sequences that asked, on prefill; absent when none did. */
  readonly promptLogprobs?: readonly ((TokenLogprobs | null)[] | null)[];
  /** [n] why a sequence got no token: the model computed garbage; absent when all got one. */
  readonly failures?: readonly (ErrorRecord | null)[];
  /** Time inside the executor. */
  readonly latencyMs: number;
}

/**
 * A loaded model. Steps do not overlap: the caller waits for one before it gives the next. A step
 * that throws leaves the executor unusable; the instance exits and is replaced.
 */
export interface Executor {
  readonly info: ExecutorInfo;
  step(input: StepInput): Promise<StepOutput>;
  /**
   * The same with callbacks, for executors on a clock: exactly one of them is called, in a later turn.
   * Optional; used instead of {@linkcode step} where it is there.
   */
  startStep?(
    input: StepInput,
    done: (output: StepOutput) => void,
    failed: (error: unknown) => void,
  ): void;
  /** Frees the model and the pool. */
  close(): Promise<void>;
}

/** Progress of a load, for people. */
export interface LoadProgress {
  readonly phase: "weights" | "kv-cache" | "swap-pool" | "kernels";
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** What is going on, without the numbers. */
  readonly detail: string;
}

export type OnProgress = (progress: LoadProgress) => void;

/** Everything needed to load an executor, as data: it crosses to the worker that runs it. */
export interface ExecutorSpec {
  readonly kind: "cpu" | "null" | "sim";
  readonly options: EngineOptions;
  /** Instances that share this host: memory fractions and cores are divided by it. */
  readonly hostShare: number;
}
