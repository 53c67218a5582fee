import type { SamplingParams, TokenLogprobs } from "../../core/protocol/generate.ts";
import type { SequenceStart, StepInput, StepOutput } from "../executor.ts";

/** The tokens to choose from: printable ASCII of a byte-level tokenizer. */
const FIRST_TOKEN = 32;
const NUM_TOKENS = 95;
const LOGPROB = -Math.log(NUM_TOKENS);

/** Vocabulary of executors without a model: larger than any tokenizer's, so every prompt is valid. */
export const SEEDED_VOCAB_SIZE = 1 << 18;

/** A sequence that asked for log probabilities. */
interface AskingSequence {
  readonly params: SamplingParams;
  readonly promptTokenIds: readonly number[];
}

/**
 * Tokens of executors without a model: each is a function of the request's seed and the token's position,
 * so a sequence continues the same on any instance. A simulated cluster draws millions a second: a hash
 * replaces the Philox of a model's sampler, and arrays by handle replace an object for each sequence (3%
 * of a simulation instead of 8%).
 */
export class SeededSampler {
  /** By handle: the hash of the request's seed. */
  #seedHashes = new Int32Array(64);
  /** By handle: length of the prompt, at least 1; 0 for unused handles. */
  #promptTokens = new Int32Array(64);
  readonly #asking = new Map<number, AskingSequence>();
  #tokenIds = new Int32Array(0);

  /** The output of a step of this latency. The next step overwrites the tokens. */
  sample(input: StepInput, latencyMs: number): StepOutput {
    for (const handle of input.removed) this.#remove(handle);
    for (const sequence of input.added) this.#add(sequence);
    const { stepId, handles, contextLens } = input;
    const numSeqs = handles.length;
    if (this.#tokenIds.length !== numSeqs) this.#tokenIds = new Int32Array(numSeqs);
    const tokenIds = this.#tokenIds, seedHashes = this.#seedHashes;
    const promptTokens = this.#promptTokens;
    for (let i = 0; i < numSeqs; i++) {
      const handle = handles[i], promptLength = promptTokens[handle];
      if (!(promptLength > 0)) throw new Error(`step ${stepId}: handle ${handle} was never added`);
      const hash = mix(seedHashes[handle] ^ (contextLens[i] - promptLength));
      tokenIds[i] = FIRST_TOKEN + (hash >>> 0) % NUM_TOKENS;
    }
    const output = { stepId, tokenIds, latencyMs };
    return this.#asking.size === 0 ? output : { ...output, ...this.#logprobs(input, tokenIds) };
  }

  /** Forgets every sequence. */
  clear(): void {
    this.#promptTokens.fill(0);
    this.#asking.clear();
  }

  #add({ handle, params, promptTokenIds }: SequenceStart): void {
    if (handle >= this.#promptTokens.length) {
      this.#promptTokens = grown(this.#promptTokens, handle);
      this.#seedHashes = grown(this.#seedHashes, handle);
    }
    this.#promptTokens[handle] = promptTokenIds.length;
    this.#seedHashes[handle] = mix(mix(params.seed | 0) ^ Math.floor(params.seed / 2 ** 32));
    const isAsking = params.logprobs !== null || params.promptLogprobs !== null;
    if (isAsking) this.#asking.set(handle, { params, promptTokenIds });
  }

  #remove(handle: number): void {
    this.#promptTokens[handle] = 0;
    this.#asking.delete(handle);
  }

  #logprobs({ kind, handles }: StepInput, tokenIds: Int32Array): Partial<StepOutput> {
    const asking = Array.from(handles, (handle) => this.#asking.get(handle));
    const wantsLogprobs = asking.some((one) => (one?.params.logprobs ?? null) !== null);
    const wantsPromptLogprobs = kind === "prefill" &&
      asking.some((one) => (one?.params.promptLogprobs ?? null) !== null);
    return {
      ...(wantsLogprobs && { logprobs: asking.map((one, i) => logprobsOf(one, tokenIds[i])) }),
      ...(wantsPromptLogprobs && { promptLogprobs: asking.map(promptLogprobsOf) }),
    };
  }
}

function grown(array: Int32Array, index: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(2 * Math.max(index, array.length));
  larger.set(array);
  return larger;
}

/** Murmur3's final mix of a 32-bit integer: every bit of the result depends on every bit. */
function mix(value: number): number {
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return value ^ (value >>> 16);
}

function logprobsOf(asking: AskingSequence | undefined, tokenId: number): TokenLogprobs | null {
  const numTop = asking?.params.logprobs ?? null;
  return numTop === null ? null : uniformLogprobs(tokenId, numTop);
}

function promptLogprobsOf(asking: AskingSequence | undefined): (TokenLogprobs | null)[] | null {
  const numTop = asking?.params.promptLogprobs ?? null;
  if (numTop === null) return null;
  return asking!.promptTokenIds.map((tokenId, i) =>
    i === 0 ? null : uniformLogprobs(tokenId, numTop)
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
