/** Engine steps of a transformer: what devices that compute a model have in common. */
import { type ErrorRecord, ModelError, toErrorRecord } from "../../core/errors.ts";
import type { ChosenToken } from "../../../ffi/cuda_kernels/sampling_kernels.ts";
import type { TokenLogprobs } from "../../core/protocol/generate.ts";
import type { KvPool } from "../../kv/pool/pool.ts";
import type { Executor, ExecutorInfo, StepInput, StepOutput, StepPipeline } from "../executor.ts";
import { Sampler } from "../sampling/sampler.ts";
import type { TokenRequest } from "../sampling/token_request.ts";
import { type SequencePart, type Slice, sliceStep } from "./slices.ts";

/**
 * A model on a device. Its functions take effect in the order of the calls; one that returns something
 * blocks the thread until it is there.
 */
export interface Transformer {
  readonly info: ExecutorInfo;
  /** See {@linkcode Executor}. */
  readonly pool: KvPool | null;
  /** Rows that go through the model together. */
  readonly maxRows: number;
  readonly head: LogitsHead;
  /**
   * Copies whole blocks, pair by pair: first out, then in.
   * @throws {RangeError} a block that is not there
   */
  swap(swapOut: Int32Array, swapIn: Int32Array): void;
  /**
   * Runs a slice through the layers, and writes its keys and values to the cache. The hidden states stay
   * until the next call.
   * @throws {RangeError} a token, block or length that the scheduler must never produce
   */
  forward(input: StepInput, slice: Slice): void;
  /** Returns when everything is done that was asked for: the cache is as the step leaves it. */
  finish(): void;
  /** Frees everything. The pool is closed already. May be called again. */
  close(): void | Promise<void>;
}

/** From hidden states to logits, a bounded number of rows at a time. */
export interface LogitsHead {
  /** Most rows of one call. */
  readonly maxRows: number;
  /** Absent: the host chooses all tokens, or reads the most likely ones by {@linkcode argmax}. */
  readonly chooser?: TokenChooser;
  /** Computes the logits of some rows of the latest slice, ascending. They stay until the next call. */
  compute(rows: readonly number[]): void;
  /** The computed logits of the i-th row; may be overwritten. */
  row(i: number): Float32Array;
  /**
   * Most likely tokens of the first `m` computed rows, the lowest id on ties; -1 for a row with NaN, or
   * whose largest logit is not finite.
   */
  argmax(m: number): Int32Array;
}

/** What a device made of a step's sequences, by their index in the step. */
export type ChosenTokens = ReadonlyMap<number, ChosenToken>;

/** Chooses tokens on the device, so that no logits come to the host. */
export interface TokenChooser {
  /** Most rows of one call of {@linkcode choose}. */
  readonly maxRows: number;
  /** A step begins. At most one other step is under way. */
  begin(): void;
  /**
   * Chooses tokens by the logits that were computed last, the i-th row's by the i-th request.
   * @param requests null: the row is left alone
   * @param firstIndex index in the step of the first row's sequence; the others follow it
   * @returns which rows it takes: the host has to choose for the others, whose logits are unchanged
   */
  choose(requests: readonly (TokenRequest | null)[], firstIndex: number): boolean[];
  /** All of the step is asked for. The function waits until it is done, and gives the tokens. */
  end(): () => ChosenTokens;
}

/** A step while it is computed. */
interface RunningStep {
  readonly input: Pick<StepInput, "stepId" | "handles" | "isPartial">;
  /** When the device could begin with it. */
  startedMs: number;
  readonly tokenIds: Int32Array;
  readonly logprobs: (TokenLogprobs | null)[];
  readonly promptLogprobs: ((TokenLogprobs | null)[] | null)[];
  readonly failures: (ErrorRecord | null)[];
  /** Null: the device chooses no tokens. */
  chosen: (() => ChosenTokens) | null;
}

/** Runs engine steps of a model, in the calling thread. */
export class TransformerExecutor implements Executor {
  readonly info: ExecutorInfo;
  readonly pool: KvPool | null;
  readonly pipeline?: StepPipeline;
  readonly #model: Transformer;
  readonly #sampler: Sampler;
  readonly #prompts = new Map<number, readonly number[]>();
  /** Scores of the prompts that are computed in pieces, by handle. */
  readonly #promptScores = new Map<number, (TokenLogprobs | null)[]>();
  /** The step of the pipeline that is under way; null: none is. */
  #ahead: RunningStep | null = null;

  constructor(model: Transformer) {
    this.info = model.info;
    this.pool = model.pool;
    this.#model = model;
    this.#sampler = new Sampler(model.info.vocabSize);
    if (model.info.runsAhead) this.pipeline = this.#pipeline();
  }

  // deno-lint-ignore require-await -- an error must be a rejection
  async step(input: StepInput): Promise<StepOutput> {
    const running = this.#begin(input);
    this.#model.finish();
    return this.#end(running);
  }

  /** The functions are asynchronous so that errors are rejections. */
  #pipeline(): StepPipeline {
    return {
      // deno-lint-ignore require-await
      start: async (input) => {
        this.#ahead = this.#begin(input);
      },
      // deno-lint-ignore require-await
      follow: async (input) => {
        const before = this.#ahead!;
        const running = this.#ahead = this.#begin(input, before);
        const output = this.#end(before);
        running.startedMs = performance.now();
        return output;
      },
      // deno-lint-ignore require-await
      collect: async () => {
        const last = this.#ahead!;
        this.#ahead = null;
        return this.#end(last);
      },
    };
  }

  /**
   * Asks the device for all of a step. What only the host can do is done when it returns.
   * @param before the step before, if its output is not known yet
   */
  #begin(input: StepInput, before: RunningStep | null = null): RunningStep {
    const startedMs = performance.now();
    this.#updateSequences(input);
    this.#model.swap(input.swapOut, input.swapIn);
    const n = input.handles.length;
    const running: RunningStep = {
      input: { stepId: input.stepId, handles: input.handles.slice(), isPartial: input.isPartial },
      startedMs,
      tokenIds: new Int32Array(n).fill(-1),
      logprobs: new Array(n).fill(null),
      promptLogprobs: new Array(n).fill(null),
      failures: new Array(n).fill(null),
      chosen: null,
    };
    const { chooser } = this.#model.head;
    if (!input.isPartial) chooser?.begin();
    for (const slice of sliceStep(input, this.#model.maxRows)) {
      this.#model.forward(input, slice);
      this.#scorePrompts(input, slice, running);
      if (input.isPartial) continue;
      if (chooser) this.#chooseTokens(chooser, input, slice, running, before);
      else this.#sampleTokens(input, slice, running);
    }
    if (!input.isPartial) running.chosen = chooser?.end() ?? null;
    return running;
  }

  /** The output of a step, when the device is done with it. */
  #end(running: RunningStep): StepOutput {
    const { input, tokenIds, logprobs, promptLogprobs, failures } = running;
    for (const [index, chosen] of running.chosen?.() ?? []) {
      failures[index] ??= failureOf(() => {
        const accepted = this.#sampler.acceptChosen(input.handles[index], chosen);
        tokenIds[index] = accepted.tokenId;
        logprobs[index] = accepted.logprobs;
      });
    }
    const isMissing = (tokenId: number, i: number) => tokenId === -1 && !failures[i];
    if (!input.isPartial && tokenIds.some(isMissing)) {
      throw new RangeError("a sequence has no rows in its step");
    }
    return {
      stepId: input.stepId,
      tokenIds,
      ...(logprobs.some(Boolean) && { logprobs }),
      ...(promptLogprobs.some(Boolean) && { promptLogprobs }),
      ...(failures.some(Boolean) && { failures }),
      latencyMs: performance.now() - running.startedMs,
    };
  }

  async close(): Promise<void> {
    if (this.pool?.memory === "device") await this.pool.close();
    await this.#model.close();
  }

  #updateSequences(input: StepInput): void {
    for (const handle of input.removed) {
      this.#sampler.remove(handle);
      this.#prompts.delete(handle);
      this.#promptScores.delete(handle);
    }
    for (const start of input.added) {
      this.#sampler.add(start);
      // Recomputed with output: the prompt's scores were given the first time.
      if (start.outputTokenIds.length === 0) this.#prompts.set(start.handle, start.promptTokenIds);
    }
  }

  /**
   * Chooses the next token of every sequence whose last row is in the slice. A sequence fails if the
   * model computes NaN or infinity for it.
   */
  #sampleTokens(input: StepInput, slice: Slice, results: RunningStep): void {
    const { head } = this.#model;
    const sampler = this.#sampler;
    const ending = slice.filter((part) => part.isLast);
    for (const parts of chunks(ending, head.maxRows)) {
      head.compute(parts.map((part) => lastRow(slice, part)));
      const handles = parts.map((part) => input.handles[part.index]);
      const greedy = handles.map((handle) => sampler.isPlainGreedy(handle));
      const best = greedy.includes(true) ? head.argmax(parts.length) : null;
      parts.forEach(({ index }, i) => {
        if (best && greedy[i] && best[i] >= 0) {
          results.tokenIds[index] = best[i];
          sampler.accept(handles[i], best[i]);
        } else {
          // Throws if a logit is NaN, or if the largest is not finite.
          results.failures[index] ??= failureOf(() => {
            const { tokenId, logprobs } = sampler.sample(handles[i], head.row(i));
            results.tokenIds[index] = tokenId;
            results.logprobs[index] = logprobs;
          });
        }
      });
    }
  }

  /** The same where the device chooses; the host does it for rows that the device does not take. */
  #chooseTokens(
    chooser: TokenChooser,
    input: StepInput,
    slice: Slice,
    results: RunningStep,
    before: RunningStep | null,
  ): void {
    const { head } = this.#model;
    const sampler = this.#sampler;
    const ending = slice.filter((part) => part.isLast);
    for (const parts of chunks(ending, Math.min(head.maxRows, chooser.maxRows))) {
      head.compute(parts.map((part) => lastRow(slice, part)));
      const requests = parts.map(({ index }) => {
        const handle = input.handles[index];
        return sampler.request(handle, before?.input.handles.includes(handle) ? 1 : 0);
      });
      chooser.choose(requests, parts[0].index).forEach((isTaken, i) => {
        if (isTaken) return;
        const { index } = parts[i];
        if (before !== null) throw new RangeError("a step ahead has a sequence for the host");
        results.failures[index] ??= failureOf(() => {
          const { tokenId, logprobs } = sampler.sample(input.handles[index], head.row(i));
          results.tokenIds[index] = tokenId;
          results.logprobs[index] = logprobs;
        });
      });
    }
  }

  /**
   * Computes log probabilities of prompt tokens for the sequences that asked. A prefill that recomputes a
   * preempted sequence has output tokens in its context and gives none: the first prefill gave them.
   */
  #scorePrompts(input: StepInput, slice: Slice, results: RunningStep): void {
    if (input.kind !== "prefill") return;
    const { head } = this.#model;
    for (const part of slice) {
      const handle = input.handles[part.index];
      const prompt = this.#prompts.get(handle);
      const contextLen = input.contextLens[part.index];
      if (prompt === undefined || contextLen > prompt.length) continue;
      if (!input.isPartial && contextLen < prompt.length) continue;
      if (this.#sampler.wantsPromptLogprobs(handle) === null) continue;
      const firstPosition = part.contextLen - part.numRows;
      // The first prompt token follows no token, and the last one precedes the output.
      let scores = this.#promptScores.get(handle);
      if (scores === undefined || firstPosition === 0) {
        this.#promptScores.set(handle, scores = [null]);
      }
      const first = rowOf(slice, part);
      const scored = Math.min(part.numRows, prompt.length - 1 - firstPosition);
      const rows = Array.from({ length: scored }, (_, i) => first + i);
      for (const chunk of chunks(rows, head.maxRows)) {
        head.compute(chunk);
        chunk.forEach((row, i) => {
          const next = prompt[firstPosition + row - first + 1];
          results.failures[part.index] ??= failureOf(() => {
            scores.push(this.#sampler.promptLogprob(handle, head.row(i), next));
          });
        });
      }
      if (part.isLast && !input.isPartial) {
        results.promptLogprobs[part.index] = scores;
        this.#promptScores.delete(handle);
        this.#prompts.delete(handle); // a recomputation gives none
      }
    }
  }
}

/** The error if the model's results are unusable, else null. Any other error is a bug and is thrown. */
function failureOf(action: () => void): ErrorRecord | null {
  try {
    action();
    return null;
  } catch (error) {
    if (error instanceof ModelError) return toErrorRecord(error);
    throw error;
  }
}

/** Row of a part's first token in the slice's matrices. */
function rowOf(slice: Slice, part: SequencePart): number {
  return part.firstRow - slice[0].firstRow;
}

function lastRow(slice: Slice, part: SequencePart): number {
  return rowOf(slice, part) + part.numRows - 1;
}

function* chunks<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let i = 0; i < items.length; i += size) yield items.slice(i, i + size);
}
