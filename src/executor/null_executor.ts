import type { SamplingParams, TokenLogprobs } from "../core/messages.ts";
import { UsageError } from "../core/errors.ts";
import { uniformAt } from "../core/random.ts";
import { blockBytes, type KvLayout } from "../kv/layout.ts";
import type { Executor, ExecutorInfo, ExecutorSpec, StepInput, StepOutput } from "./executor.ts";

/** Tokens that the null executor chooses from: printable ASCII of a byte-level tokenizer. */
const FIRST_TOKEN = 32;
const NUM_TOKENS = 95;
const LOGPROB = -Math.log(NUM_TOKENS);

/** Larger than any tokenizer's, so that every prompt is accepted. */
const VOCAB_SIZE = 1 << 18;
const DEFAULT_MAX_MODEL_LEN = 4096;
const DEFAULT_NUM_BLOCKS = 16384;
const GIB = 2 ** 30;

/** What a sampler knows of a sequence. */
interface SequenceState {
  readonly params: SamplingParams;
  readonly promptTokenIds: readonly number[];
}

/**
 * An executor without a model, for measuring everything around one: each token is a function of the
 * request's seed and the token's position. It takes no time, needs no memory, and accounts for
 * blocks of LLaMA-7B's shape in half precision.
 */
export class NullExecutor implements Executor {
  readonly info: ExecutorInfo;
  readonly #sequences = new Map<number, SequenceState>();
  #isClosed = false;

  /** @throws {UsageError} an option that cannot be met */
  constructor(spec: ExecutorSpec) {
    const { options } = spec;
    const layout: KvLayout = {
      format: "cpu-kt",
      dtype: options.dtype === "float" || options.dtype === "float32" ? "float32" : "float16",
      numLayers: 32,
      numKvHeads: 32,
      headDim: 128,
      blockSize: options.blockSize,
    };
    const numBlocks = options.numGpuBlocksOverride ?? DEFAULT_NUM_BLOCKS;
    if (numBlocks < 1) {
      throw new UsageError(`--num-gpu-blocks-override is ${numBlocks}, expected 1 or more`);
    }
    this.info = {
      description: "null (no model)",
      model: options.model ?? "null",
      dtype: layout.dtype,
      vocabSize: VOCAB_SIZE,
      maxModelLen: options.maxModelLen ?? DEFAULT_MAX_MODEL_LEN,
      layout,
      numBlocks,
      numSwapBlocks: Math.floor(options.swapSpace * GIB / blockBytes(layout)),
      poolAddress: null,
    };
  }

  step(input: StepInput): Promise<StepOutput> {
    if (this.#isClosed) return Promise.reject(new Error("the null executor is closed"));
    for (const handle of input.removed) this.#sequences.delete(handle);
    for (const { handle, params, promptTokenIds } of input.added) {
      this.#sequences.set(handle, { params, promptTokenIds });
    }
    try {
      return Promise.resolve(this.#run(input));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.#sequences.clear();
    return Promise.resolve();
  }

  #run({ stepId, kind, handles, contextLens }: StepInput): StepOutput {
    const tokenIds = new Int32Array(handles.length);
    const states: SequenceState[] = [];
    let wantsLogprobs = false, wantsPromptLogprobs = false;
    for (let i = 0; i < handles.length; i++) {
      const state = this.#sequences.get(handles[i]);
      if (!state) throw new Error(`step ${stepId}: handle ${handles[i]} was never added`);
      states.push(state);
      const position = contextLens[i] - state.promptTokenIds.length;
      tokenIds[i] = FIRST_TOKEN + Math.floor(NUM_TOKENS * uniformAt(state.params.seed, position));
      wantsLogprobs ||= state.params.logprobs !== null;
      wantsPromptLogprobs ||= kind === "prefill" && state.params.promptLogprobs !== null;
    }
    return {
      stepId,
      tokenIds,
      ...(wantsLogprobs && { logprobs: states.map((state, i) => logprobsOf(state, tokenIds[i])) }),
      ...(wantsPromptLogprobs && { promptLogprobs: states.map(promptLogprobsOf) }),
      latencyMs: 0,
    };
  }
}

function logprobsOf({ params }: SequenceState, tokenId: number): TokenLogprobs | null {
  return params.logprobs === null ? null : uniformLogprobs(tokenId, params.logprobs);
}

function promptLogprobsOf(
  { params, promptTokenIds }: SequenceState,
): (TokenLogprobs | null)[] | null {
  const { promptLogprobs } = params;
  if (promptLogprobs === null) return null;
  return promptTokenIds.map((tokenId, i) =>
    i === 0 ? null : uniformLogprobs(tokenId, promptLogprobs)
  );
}

/** Log probabilities of the uniform distribution that the tokens are drawn from. */
function uniformLogprobs(tokenId: number, numTop: number): TokenLogprobs {
  const isPossible = tokenId >= FIRST_TOKEN && tokenId < FIRST_TOKEN + NUM_TOKENS;
  const top = Array.from(
    { length: Math.min(numTop, NUM_TOKENS) },
    (_, i) => [FIRST_TOKEN + i, LOGPROB] as const,
  );
  return {
    tokenId,
    logprob: isPossible ? LOGPROB : null,
    rank: isPossible ? 1 : NUM_TOKENS + 1,
    top,
  };
}

/** Makes a {@linkcode NullExecutor}; there is nothing to load. */
export function loadNullExecutor(spec: ExecutorSpec): Promise<Executor> {
  return Promise.resolve(new NullExecutor(spec));
}
