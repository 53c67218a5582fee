/**
 * Chooses tokens as vLLM 0.4.2 does (model_executor/layers/sampler.py): restrictions, min_tokens, penalties,
 * temperature, top-k, top-p, min-p, then the draw; log probabilities are of the distribution after
 * all of these. The choice depends on (logits, parameters, tokens so far, seed, position) alone.
 */
import { LlumnixError } from "../../core/errors.ts";
import type { SamplingParams, TokenLogprobs } from "../../core/protocol/generate.ts";
import { uniformAt } from "../../core/random.ts";
import type { SequenceStart } from "../executor.ts";
import { type ChosenToken, mostTopTokens } from "../../../ffi/cuda_kernels/sampling_kernels.ts";
import {
  argmax,
  garbageLogit,
  largestWeight,
  logprobOf,
  nothingToChoose,
  TokenDistribution,
} from "./distribution.ts";
import { TokenRestrictions } from "./restrictions.ts";
import { choiceOf, epsilon, hasPenalties, isGreedy, type TokenRequest } from "./token_request.ts";

const maxFloat32 = (2 - 2 ** -23) * 2 ** 127;

/** What the sampler remembers of a sequence. */
interface SequenceState {
  readonly params: SamplingParams;
  readonly isGreedy: boolean;
  readonly hasPenalties: boolean;
  readonly restrictions: TokenRestrictions | null;
  /** End-of-sequence and stop tokens, excluded before min_tokens. */
  readonly ends: readonly number[];
  outputLength: number;
  /** Occurrences in the output by token, 0 for tokens of the prompt alone; kept for penalties. */
  readonly counts: Map<number, number>;
}

export class Sampler {
  readonly #vocabSize: number;
  readonly #distribution: TokenDistribution;
  readonly #sequences = new Map<number, SequenceState>();

  constructor(vocabSize: number) {
    this.#vocabSize = vocabSize;
    this.#distribution = new TokenDistribution(vocabSize);
  }

  /** Begins a sequence; its handle must be free. */
  add(start: SequenceStart): void {
    if (this.#sequences.has(start.handle)) {
      throw new LlumnixError("internal", `sequence handle ${start.handle} is in use`);
    }
    const params = start.params;
    const state: SequenceState = {
      params,
      isGreedy: isGreedy(params),
      hasPenalties: hasPenalties(params),
      restrictions: TokenRestrictions.of(params, this.#vocabSize),
      ends: this.#endsOf(params),
      outputLength: 0,
      counts: new Map(),
    };
    if (state.hasPenalties) { for (const id of start.promptTokenIds) state.counts.set(id, 0); }
    for (const id of start.outputTokenIds) record(state, id);
    this.#sequences.set(start.handle, state);
  }

  /** Forgets a sequence; unknown handles are ignored. */
  remove(handle: number): void {
    this.#sequences.delete(handle);
  }

  /** Whether the next token is the argmax of the raw logits, and the request asks for nothing else. */
  isPlainGreedy(handle: number): boolean {
    const state = this.#state(handle);
    return state.isGreedy && !state.hasPenalties && state.restrictions === null &&
      state.params.logprobs === null &&
      state.outputLength >= state.params.minTokens;
  }

  /** Records an output token that the caller chose. */
  accept(handle: number, tokenId: number): void {
    record(this.#state(handle), tokenId);
  }

  /**
   * What a device needs to choose the next token; null if only the host can.
   * @param ahead tokens that are chosen already and that the host does not know yet: only if
   *   `canChooseAhead`
   */
  request(handle: number, ahead = 0): TokenRequest | null {
    const { params, ends, counts, restrictions, ...state } = this.#state(handle);
    if ((params.logprobs ?? 0) > mostTopTokens) return null;
    const position = state.outputLength + ahead;
    const choice = choiceOf(params, position, largestWeight(this.#vocabSize));
    const endsNow = position < params.minTokens ? ends : [];
    if (restrictions === null && endsNow.length === 0 && !state.hasPenalties) {
      return { choice, edits: null };
    }
    const restricted = restrictions === null
      ? { bias: [], allowed: null, excluded: [] }
      : restrictions.edits();
    if (restricted === null) return null;
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = params;
    const edits = {
      ...{ ...restricted, ends: endsNow, keepsEnds: restrictions !== null, counts },
      ...{ repetitionPenalty, frequencyPenalty, presencePenalty },
    };
    return { choice, edits };
  }

  /**
   * Records the token that a device chose, and computes its log probabilities if they are asked for.
   * @throws {ModelError} a logit is NaN or +Infinity: nothing is recorded
   */
  acceptChosen(
    handle: number,
    chosen: ChosenToken,
  ): { tokenId: number; logprobs: TokenLogprobs | null } {
    if (chosen.status === "garbage") throw garbageLogit(chosen.token, chosen.value);
    if (chosen.status === "nothing") throw nothingToChoose();
    const state = this.#state(handle), { params } = state;
    record(state, chosen.token);
    const logprobs = params.logprobs === null ? null : this.#logprobsOf(state, chosen);
    return { tokenId: chosen.token, logprobs };
  }

  #logprobsOf({ params, isGreedy }: SequenceState, chosen: ChosenToken): TokenLogprobs {
    const inverseTemperature = isGreedy ? 1 : 1 / params.temperature;
    const logprob = (value: number): number | null =>
      value === -Infinity ? null : logprobOf(
        (value - chosen.largest) * inverseTemperature,
        chosen.totalWeight,
        largestWeight(this.#vocabSize),
      );
    const top = chosen.top.map(([id, value]) => [id, logprob(value)] as const);
    const listed = new Set(top.map(([id]) => id));
    const count = Math.min(params.logprobs ?? 0, this.#vocabSize);
    // Tokens that the cuts took out, the lowest id first, where too few are left.
    for (let id = 0; top.length < count; id++) if (!listed.has(id)) top.push([id, null]);
    return { tokenId: chosen.token, logprob: logprob(chosen.value), rank: chosen.rank, top };
  }

  /**
   * Chooses and records the next token.
   * @param logits [vocab]; overwritten
   * @throws {ModelError} a logit is NaN or +Infinity: nothing is recorded
   */
  sample(
    handle: number,
    logits: Float32Array,
  ): { tokenId: number; logprobs: TokenLogprobs | null } {
    const state = this.#state(handle);
    const { params } = state;
    state.restrictions?.apply(logits);
    excludeEnds(logits, state);
    if (state.hasPenalties) penalise(logits, state);

    let tokenId: number;
    let logprobs: TokenLogprobs | null = null;
    if (state.isGreedy) {
      tokenId = argmax(logits);
      if (params.logprobs !== null) this.#shape(logits, state);
    } else {
      this.#shape(logits, state);
      tokenId = this.#distribution.draw(uniformAt(params.seed, state.outputLength));
    }
    if (params.logprobs !== null) logprobs = this.#distribution.logprobs(tokenId, params.logprobs);
    record(state, tokenId);
    return { tokenId, logprobs };
  }

  /** Alternatives to report per prompt token; null if the request wants no prompt log probabilities. */
  wantsPromptLogprobs(handle: number): number | null {
    return this.#state(handle).params.promptLogprobs;
  }

  /**
   * Log probability of a prompt token given those before it. As in vLLM 0.4.2, temperature and the
   * cuts apply to prompt positions, penalties and min_tokens do not.
   * @param logits [vocab] of the position before `nextTokenId`
   */
  promptLogprob(handle: number, logits: Float32Array, nextTokenId: number): TokenLogprobs {
    const state = this.#state(handle);
    this.#shape(logits, state);
    return this.#distribution.logprobs(nextTokenId, state.params.promptLogprobs ?? 0);
  }

  /** Temperature, top-k, top-p, min-p. Greedy sequences ignore all of them. */
  #shape(logits: Float32Array, { params, isGreedy }: SequenceState): void {
    const distribution = this.#distribution;
    distribution.load(logits);
    if (isGreedy) return distribution.weigh(1);
    if (params.topK > 0) distribution.keepTopK(params.topK);
    distribution.weigh(params.temperature);
    if (params.topP < 1 - epsilon) distribution.keepTopP(params.topP);
    if (params.minP > epsilon) distribution.keepMinP(params.minP);
  }

  /** A request may name every token that it allows as its end: then min_tokens cannot hold. */
  #endsOf({ eosTokenIds, stopTokenIds, allowedTokenIds }: SamplingParams): readonly number[] {
    const isToken = (id: number) => id >= 0 && id < this.#vocabSize;
    const ends = new Set([...eosTokenIds, ...stopTokenIds].filter(isToken));
    const allowed = allowedTokenIds?.filter(isToken) ?? [];
    const isAnyLeft = allowed.length > 0
      ? allowed.some((id) => !ends.has(id))
      : ends.size < this.#vocabSize;
    return isAnyLeft ? [...ends] : [];
  }

  #state(handle: number): SequenceState {
    const state = this.#sequences.get(handle);
    if (!state) throw new LlumnixError("internal", `no sequence has the handle ${handle}`);
    return state;
  }
}

function record(state: SequenceState, tokenId: number): void {
  state.outputLength++;
  state.restrictions?.record(tokenId);
  if (state.hasPenalties) state.counts.set(tokenId, (state.counts.get(tokenId) ?? 0) + 1);
}

/** Makes tokens that end the output impossible before min_tokens, unless bad words left nothing else. */
function excludeEnds(logits: Float32Array, state: SequenceState): void {
  const { params, ends, outputLength, restrictions } = state;
  if (outputLength >= params.minTokens) return;
  const before = restrictions === null ? null : ends.map((id) => logits[id]);
  for (const id of ends) logits[id] = -Infinity;
  if (before === null || logits.some((logit) => logit !== -Infinity)) return;
  ends.forEach((id, i) => logits[id] = before[i]);
}

/** Applies the repetition penalty to tokens of prompt and output, the other two to output tokens. */
function penalise(logits: Float32Array, { params, counts }: SequenceState): void {
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = params;
  for (const [id, count] of counts) {
    let logit = logits[id];
    if (logit === -Infinity) continue;
    logit = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    if (count > 0) logit -= frequencyPenalty * count + presencePenalty;
    // An extreme penalty must not look like a broken model.
    logits[id] = Math.max(-maxFloat32, Math.min(maxFloat32, logit));
  }
}
