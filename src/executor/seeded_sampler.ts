import type { SamplingParams, TokenLogprobs } from "../core/messages.ts";
import type { StepInput, StepOutput } from "./executor.ts";

/** Tokens that are chosen from: printable ASCII of a byte-level tokenizer. */
const FIRST_TOKEN = 32;
const NUM_TOKENS = 95;
const LOGPROB = -Math.log(NUM_TOKENS);

/** Vocabulary of executors without a model: larger than any tokenizer's, so every prompt is taken. */
export const SEEDED_VOCAB_SIZE = 1 << 18;

/** What a sampler knows of a sequence. */
interface SequenceState {
  readonly params: SamplingParams;
  readonly promptTokenIds: readonly number[];
  /** Of the request's seed. */
  readonly hash: number;
}

/**
 * The tokens of executors that have no model: each is a function of the request's seed and the
 * token's position, so a sequence goes on the same wherever it is computed. A simulated cluster
 * draws millions a second, which takes a hash where a model's sampler takes Philox.
 */
export class SeededSampler {
  /** By handle. */
  #sequences: (SequenceState | undefined)[] = [];

  /** What a step produces, but for its latency. */
  sample(input: StepInput): Omit<StepOutput, "latencyMs"> {
    const sequences = this.#sequences;
    for (const handle of input.removed) sequences[handle] = undefined;
    for (const { handle, params, promptTokenIds } of input.added) {
      const hash = mix(mix(params.seed | 0) ^ Math.floor(params.seed / 2 ** 32));
      sequences[handle] = { params, promptTokenIds, hash };
    }
    const { stepId, kind, handles, contextLens } = input;
    const tokenIds = new Int32Array(handles.length);
    let wantsLogprobs = false, wantsPromptLogprobs = false;
    for (let i = 0; i < handles.length; i++) {
      const state = sequences[handles[i]];
      if (!state) throw new Error(`step ${stepId}: handle ${handles[i]} was never added`);
      const position = contextLens[i] - state.promptTokenIds.length;
      tokenIds[i] = FIRST_TOKEN + (mix(state.hash ^ position) >>> 0) % NUM_TOKENS;
      if (state.params.logprobs !== null) wantsLogprobs = true;
      if (state.params.promptLogprobs !== null) wantsPromptLogprobs = kind === "prefill";
    }
    const output = { stepId, tokenIds };
    if (!wantsLogprobs && !wantsPromptLogprobs) return output;
    const states = Array.from(handles, (handle) => sequences[handle]!);
    return {
      ...output,
      ...(wantsLogprobs && { logprobs: states.map((state, i) => logprobsOf(state, tokenIds[i])) }),
      ...(wantsPromptLogprobs && { promptLogprobs: states.map(promptLogprobsOf) }),
    };
  }

  /** Forgets every sequence. */
  clear(): void {
    this.#sequences = [];
  }
}

/** Murmur3's final mix of a 32-bit integer: every bit of the result depends on every bit. */
function mix(value: number): number {
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return value ^ (value >>> 16);
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
