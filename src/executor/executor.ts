/**
 * An executor holds a model and its KV cache and runs engine steps. The scheduler decides what a
 * step contains; the executor knows nothing of requests, queues or time.
 */
import type { ErrorRecord } from "../core/errors.ts";
import type { SamplingParams, TokenLogprobs } from "../core/protocol/generate.ts";
import type { EngineOptions } from "../core/options.ts";
import type { KvLayout } from "../kv/layout.ts";
import type { KvPool } from "../kv/pool/pool.ts";

/** What the scheduler needs to know of a loaded executor. */
export interface ExecutorInfo {
  /** For people: "cpu (avx512bf16, 2 threads)". */
  readonly description: string;
  /** The model's name or directory: see `modelIdentity`. */
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
   * The executor computes nothing and has no cache. The scheduler then leaves `tokenIds` and
   * `blockTables` of its steps empty: writing them takes longer than everything else. Default false.
   */
  readonly hasNoCache?: boolean;
  /**
   * Most tokens of a prompt that one step may compute; longer prompts come in pieces. Absent: prompts
   * come whole.
   */
  readonly maxPieceTokens?: number;
  /** Extra time of a step for each of its tokens, before the step counts as hanging. Default 0. */
  readonly tokenTimeoutMs?: number;
  /** What the operator should know of the device, a sentence each. Default none. */
  readonly warnings?: readonly string[];
  /** The executor has a {@linkcode StepPipeline}. Default false. */
  readonly runsAhead?: boolean;
  /**
   * Bytes per millisecond at which blocks move between simulated devices. Absent: a transfer takes as
   * long as the copy does.
   */
  readonly migrationBytesPerMs?: number;
}

/** Announces a sequence to the sampler, with its first step on this instance. */
export interface SequenceStart {
  /** A small integer that names the sequence until a step has it in `removed`. */
  readonly handle: number;
  readonly params: SamplingParams;
  readonly promptTokenIds: readonly number[];
  readonly outputTokenIds: readonly number[];
}

/**
 * One step over a ragged batch of n sequences, n >= 1. For each sequence, `tokenIds` holds the tokens
 * whose keys and values are not in the cache yet. The cache of sequence i is in the blocks
 * `blockTables[i * maxBlocks ...]`: position p is in table entry `floor(p / blockSize)`, slot
 * `p % blockSize`. Block copies run before anything else, in the order swap out, swap in, pair by pair.
 * The arrays belong to the caller, which does not change them until the step's promise settles.
 */
export interface StepInput {
  readonly stepId: number;
  readonly kind: "prefill" | "decode";
  /**
   * The only sequence of the step has more of its prompt to come: no token is chosen, and the output
   * has -1 in its place. Only for executors with `maxPieceTokens`; default false.
   */
  readonly isPartial?: boolean;
  /**
   * The step before is still under way: see {@linkcode StepPipeline}. A token id of -1 - i is the token that
   * the step before chooses for its sequence i. Default false.
   */
  readonly isAhead?: boolean;
  /** Handles whose sampler state to drop, before `added` is handled. */
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
  /** [n + 1] index of each sequence's first token in `tokenIds`, then the number of tokens. */
  readonly queryStarts: Int32Array;
  /** [n] tokens of each sequence including this step's. */
  readonly contextLens: Int32Array;
  /** [n, maxBlocks] */
  readonly blockTables: Int32Array;
  readonly maxBlocks: number;
}

/** The result of a step. */
export interface StepOutput {
  readonly stepId: number;
  /** [n] one sampled token per sequence. The next step may overwrite them. */
  readonly tokenIds: Int32Array;
  /** [n] entries of the sequences that asked for log probabilities; absent when none asked. */
  readonly logprobs?: readonly (TokenLogprobs | null)[];
  /** [n] on prefill, an entry per prompt token of the sequences that asked; absent when none asked. */
  readonly promptLogprobs?: readonly ((TokenLogprobs | null)[] | null)[];
  /** [n] why a sequence got no token (the model computed NaN or infinity); absent when all got one. */
  readonly failures?: readonly (ErrorRecord | null)[];
  /** Time that the step took inside the executor. */
  readonly latencyMs: number;
}

/**
 * Steps of which each begins before the output of the one before is known, so that the device does not wait
 * for the host: decode steps whose sequences all `canChooseAhead` (sampling/token_request.ts). Steps that follow
 * announce no sequences and copy no blocks. Calls alternate with their answers: `start`, then `follow`
 * any number of times, then `collect`. No call of `step` lies between. The arrays of an input are read before
 * the promise settles.
 */
export interface StepPipeline {
  /** Begins the first step. */
  start(input: StepInput): Promise<void>;
  /** Begins the next step, whose `isAhead` is set, and gives the output of the one before. */
  follow(input: StepInput): Promise<StepOutput>;
  /** Gives the output of the last step. */
  collect(): Promise<StepOutput>;
}

/**
 * A loaded model. Steps do not overlap: the caller waits for a step before it gives the next. A step
 * that throws leaves the executor unusable: the instance exits and is replaced.
 */
export interface Executor {
  readonly info: ExecutorInfo;
  /**
   * The memory of the KV cache, for transfers; closed with the executor. Null where this thread cannot
   * reach it: no request can move to or from the instance then.
   */
  readonly pool: KvPool | null;
  step(input: StepInput): Promise<StepOutput>;
  /**
   * {@linkcode step} with callbacks, for executors on a simulated clock, which is faster. Optional; the
   * engine prefers it. Exactly one callback is called, in a later turn.
   */
  startStep?(
    input: StepInput,
    done: (output: StepOutput) => void,
    failed: (error: unknown) => void,
  ): void;
  /** Absent: the executor runs one step at a time. */
  readonly pipeline?: StepPipeline;
  /** Frees the model and the pool. */
  close(): Promise<void>;
}

/** Progress of a load, for people. */
export interface LoadProgress {
  readonly phase: "weights" | "kv-cache" | "swap-pool" | "kernels";
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** What is being loaded, in words. */
  readonly detail: string;
}

export type OnProgress = (progress: LoadProgress) => void;

/** A device by its name; `--device auto` stands for one of them. */
export type DeviceName = Exclude<EngineOptions["device"], "auto">;

/** Everything needed to load an executor, as data: it crosses to the worker that runs it. */
export interface ExecutorSpec {
  readonly device: DeviceName;
  readonly options: EngineOptions;
  /** Instances that share this host: memory fractions and cores are divided by it. */
  readonly hostShare: number;
}
