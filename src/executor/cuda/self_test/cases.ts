/** What the self-test computes on a device and on the CPU, and how far the two may be apart. */
import type { DType } from "../../../core/dtype.ts";
import type { SamplingParams } from "../../../core/protocol/generate.ts";
import { samplingDefaults } from "../../../core/sampling.ts";
import type { Executor, SequenceStart, StepInput, StepOutput } from "../../executor.ts";

/** One comparison. Infinity as an error: NaN, or other tokens. */
export interface CaseResult {
  readonly name: string;
  readonly error: number;
  readonly limit: number;
}

/** Errors of logits, the norm of the difference over the norm, that rounding explains. */
const limits: Readonly<Record<DType, number>> = { float32: 1e-4, float16: 1e-2, bfloat16: 5e-2 };

/** The same where the device's keys and values have 8 bits, and the CPU's do not. */
const NARROW_CACHE_LIMIT = 0.2;

/** Sequences of the test, each with blocks of its own. */
export interface TestedSequence {
  readonly start: SequenceStart;
  readonly firstBlock: number;
  length: number;
}

/** Runs steps of the same tokens on any executor. */
export class Steps {
  readonly #executor: Executor;
  readonly #blocksOfSequence: number;
  #stepId = 0;
  #sequences = 0;
  #added: SequenceStart[] = [];

  constructor(executor: Executor, maxTokens: number) {
    this.#executor = executor;
    this.#blocksOfSequence = Math.ceil(maxTokens / executor.info.layout.blockSize);
  }

  add(length: number, params: Partial<SamplingParams>): TestedSequence {
    const handle = this.#sequences++;
    const start = {
      handle,
      params: { ...samplingDefaults, maxTokens: 100, seed: handle, eosTokenIds: [], ...params },
      promptTokenIds: tokensOf(handle, 0, length, this.#executor.info.vocabSize),
      outputTokenIds: [],
    };
    this.#added.push(start);
    return { start, firstBlock: handle * this.#blocksOfSequence, length };
  }

  /** A step over the prompts, or over one more token of each sequence. */
  input(
    kind: StepInput["kind"],
    sequences: readonly TestedSequence[],
    tokens?: number[],
  ): StepInput {
    const { vocabSize } = this.#executor.info;
    const maxBlocks = this.#blocksOfSequence, tokenIds: number[] = [], queryStarts = [0];
    sequences.forEach((sequence, i) => {
      const { promptTokenIds, handle } = sequence.start;
      if (kind === "prefill") tokenIds.push(...promptTokenIds);
      else {
        tokenIds.push(tokens?.[i] ?? tokensOf(handle, sequence.length, 1, vocabSize)[0]);
        sequence.length++;
      }
      queryStarts.push(tokenIds.length);
    });
    const added = this.#added;
    this.#added = [];
    return {
      ...{ stepId: this.#stepId++, kind, removed: [], added, maxBlocks },
      ...{ swapOut: new Int32Array(), swapIn: new Int32Array() },
      handles: Int32Array.from(sequences, ({ start }) => start.handle),
      tokenIds: Int32Array.from(tokenIds),
      queryStarts: Int32Array.from(queryStarts),
      contextLens: Int32Array.from(sequences, ({ length }) => length),
      blockTables: Int32Array.from(
        sequences.flatMap(({ firstBlock }) =>
          Array.from({ length: maxBlocks }, (_, i) => firstBlock + i)
        ),
      ),
    };
  }

  step(...given: Parameters<Steps["input"]>): Promise<StepOutput> {
    return this.#executor.step(this.input(...given));
  }
}

/** Tokens that depend on their place alone. */
function tokensOf(sequence: number, first: number, count: number, vocabSize: number): number[] {
  return Array.from(
    { length: count },
    (_, i) => ((first + i) * 7919 + sequence * 104_729 + 13) % vocabSize,
  );
}

/** The logits of a step's sequences less their mean, which is all that log probabilities tell. */
function logitsOf({ tokenIds, logprobs }: StepOutput, vocabSize: number): Float64Array[] {
  return Array.from(tokenIds, (_, i) => {
    const row = logprobs?.[i] ?? null; // null: the model computed NaN
    const values = new Float64Array(vocabSize).fill(row === null ? NaN : 0);
    for (const [token, logprob] of row?.top ?? []) values[token] = logprob ?? -Infinity;
    const mean = values.reduce((sum, value) => sum + value, 0) / vocabSize;
    return values.map((value) => value - mean);
  });
}

function relativeError(found: readonly Float64Array[], truth: readonly Float64Array[]): number {
  let difference = 0, norm = 0;
  truth.forEach((row, r) =>
    row.forEach((value, i) => {
      difference += (found[r][i] - value) ** 2;
      norm += value ** 2;
    })
  );
  const error = Math.sqrt(difference / norm);
  return Number.isNaN(error) ? Infinity : error;
}

/** Prompts of the comparison, in tokens: a long one, and as many as several passes of a batch take. */
export function promptLengths(longest: number): number[] {
  return [longest, 1, 7, 12, 3, 17, 9, 5, 2];
}

/** Most tokens of a sequence of the test. */
export const extraTokens = 8;

/** Logits of every kind of step, by the name of the case. */
async function logitsOfAll(
  executor: Executor,
  longest: number,
): Promise<Map<string, Float64Array[]>> {
  const { vocabSize } = executor.info;
  const steps = new Steps(executor, longest + extraTokens);
  const all = promptLengths(longest).map((length) =>
    steps.add(length, { temperature: 0, logprobs: vocabSize })
  );
  const found = new Map<string, Float64Array[]>();
  const step = async (name: string, ...given: Parameters<Steps["step"]>) => {
    found.set(name, logitsOf(await steps.step(...given), vocabSize));
  };
  await step("prompts", "prefill", all);
  await step("a single row", "decode", all.slice(0, 1));
  await step("3 rows", "decode", all.slice(0, 3));
  await step(`${all.length} rows`, "decode", all);
  return found;
}

/**
 * Compares a device with the CPU: both are loaded with the same model.
 * @param dtype in which both compute
 */
export async function compareLogits(
  device: Executor,
  cpu: Executor,
  longest: number,
  dtype: DType,
): Promise<CaseResult[]> {
  const truth = await logitsOfAll(cpu, longest);
  const found = await logitsOfAll(device, longest);
  const isNarrow = device.info.layout.dtype === "float8_e4m3";
  const limit = isNarrow ? NARROW_CACHE_LIMIT : limits[dtype];
  return [...truth].map(([name, logits]) => ({
    name: `logits of ${name}`,
    error: relativeError(found.get(name)!, logits),
    limit,
  }));
}

const choices: readonly Partial<SamplingParams>[] = [
  { temperature: 0 },
  { temperature: 0.9, topP: 0.9 },
  { temperature: 1.3, topK: 40, minP: 0.01 },
  {
    temperature: 1,
    frequencyPenalty: 0.5,
    repetitionPenalty: 1.2,
    minTokens: 3,
    stopTokenIds: [1],
  },
  { temperature: 1, allowedTokenIds: [5, 9, 11, 200], logitBias: [[9, 2]] },
];

/**
 * Compares tokens that the device chooses with those of the host for the same logits: a request that asks for
 * all log probabilities is left to the host. Then steps in turn with steps ahead.
 */
export async function compareChoices(device: Executor): Promise<CaseResult[]> {
  const { vocabSize } = device.info;
  const steps = new Steps(device, 8 + extraTokens);
  const twins = choices.map((params) =>
    [{}, { logprobs: vocabSize }].map((more) => steps.add(8, { ...params, ...more, seed: 11 }))
  );
  // Twins have the same prompt.
  for (const [one, other] of twins) {
    (other.start as { promptTokenIds: readonly number[] }).promptTokenIds =
      one.start.promptTokenIds;
  }
  const all = twins.flat();
  let tokens = await tokensOfStep(steps.step("prefill", all));
  let isSame = areTwins(tokens);
  for (let i = 0; i < 3 && isSame; i++) {
    tokens = await tokensOfStep(steps.step("decode", all, tokens));
    isSame = areTwins(tokens);
  }
  const results = [{
    name: "tokens that the device chooses",
    error: isSame ? 0 : Infinity,
    limit: 0,
  }];
  if (!isSame || device.pipeline === undefined) return results;
  const isRight = await stepsAheadAgree(steps, device.pipeline);
  return [...results, { name: "steps ahead", error: isRight ? 0 : Infinity, limit: 0 }];
}

async function tokensOfStep(output: Promise<StepOutput>): Promise<number[]> {
  return [...(await output).tokenIds];
}

function areTwins(tokens: readonly number[]): boolean {
  return tokens.every((token, i) => token >= 0 && token === tokens[i - i % 2]);
}

async function stepsAheadAgree(
  steps: Steps,
  pipeline: NonNullable<Executor["pipeline"]>,
): Promise<boolean> {
  const params = { temperature: 1.1, seed: 3 };
  const inTurn = steps.add(6, params), ahead = steps.add(6, params);
  (ahead.start as { promptTokenIds: readonly number[] }).promptTokenIds =
    inTurn.start.promptTokenIds;
  const first = await tokensOfStep(steps.step("prefill", [inTurn, ahead]));
  const second = await tokensOfStep(steps.step("decode", [inTurn], first));
  const third = await tokensOfStep(steps.step("decode", [inTurn], second));
  await pipeline.start(steps.input("decode", [ahead], first.slice(1)));
  const following = { ...steps.input("decode", [ahead], [-1]), isAhead: true };
  const found = [await pipeline.follow(following), await pipeline.collect()];
  const tokens = found.map(({ tokenIds }) => tokenIds[0]);
  return first[0] === first[1] && tokens[0] === second[0] && tokens[1] === third[0];
}
