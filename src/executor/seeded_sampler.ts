import type { SamplingParams, TokenLogprobs } from "../core/messages.ts";
import { uniformAt } from "../core/random.ts";
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
}

/**
 * The tokens of executors that have no model: each is a function of the request's seed and the
 * token's position, so a sequence goes on the same wherever it is computed.
 */
export class SeededSampler {
  readonly #sequences = new Map<number, SequenceState>();

  /** What a step produces, but for its latency. */
  sample(input: StepInput): Omit<StepOutput, "latencyMs"> {
    for (const handle of input.removed) this.#sequences.delete(handle);
    for (const { handle, params, promptTokenIds } of input.added) {
      this.#sequences.set(handle, { params, promptTokenIds });
    }
    const { stepId, kind, handles, contextLens } = input;
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
    };
  }

  /** Forgets every sequence. */
  clear(): void {
    this.#sequences.clear();
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
