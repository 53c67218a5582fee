import type { CpuKernels, Decoder, KernelAddress } from "../../../ffi/cpu_kernels/kernels.ts";
import { type ErrorRecord, ModelError, toErrorRecord } from "../../core/errors.ts";
import type { TokenLogprobs } from "../../core/protocol/generate.ts";
import { blockBytes } from "../../kv/layout.ts";
import type { KvPool } from "../../kv/pool/pool.ts";
import type { Executor, ExecutorInfo, StepInput, StepOutput } from "../executor.ts";
import { Sampler } from "../sampling/sampler.ts";
import { type BatchBuffer, type SequencePart, type Slice, sliceStep } from "./batch.ts";
import type { LogitsHead } from "./logits.ts";

/** The parts of a loaded model, all in the memory of `kernels`. */
export interface CpuExecutorParts {
  readonly kernels: CpuKernels;
  readonly info: ExecutorInfo;
  readonly decoder: Decoder;
  readonly head: LogitsHead;
  readonly batchBuffer: BatchBuffer;
  /** Rows that go through the model together. */
  readonly maxRows: number;
  /** See {@linkcode Executor}. */
  readonly pool: KvPool | null;
  /** Block 0 of the KV cache. */
  readonly blocks: KernelAddress;
  /** Block 0 of the swap pool. */
  readonly swapBlocks: KernelAddress;
}

/** The output of a step while it is computed. */
interface Results {
  readonly tokenIds: Int32Array;
  readonly logprobs: (TokenLogprobs | null)[];
  readonly promptLogprobs: ((TokenLogprobs | null)[] | null)[];
  readonly failures: (ErrorRecord | null)[];
}

/** Runs engine steps on the CPU, in the calling thread and the threads of the kernels. */
export class CpuExecutor implements Executor {
  readonly info: ExecutorInfo;
  readonly pool: KvPool | null;
  readonly #parts: CpuExecutorParts;
  readonly #sampler: Sampler;
  readonly #prompts = new Map<number, readonly number[]>();
  /** Scores of the prompts that are computed in pieces, by handle. */
  readonly #promptScores = new Map<number, (TokenLogprobs | null)[]>();

  constructor(parts: CpuExecutorParts) {
    this.info = parts.info;
    this.pool = parts.pool;
    this.#parts = parts;
    this.#sampler = new Sampler(parts.info.vocabSize);
  }

  // deno-lint-ignore require-await -- asynchronous for executors on other devices
  async step(input: StepInput): Promise<StepOutput> {
    const startedMs = performance.now();
    this.#updateSequences(input);
    this.#swap(input);
    const n = input.handles.length;
    const results: Results = {
      tokenIds: new Int32Array(n).fill(-1),
      logprobs: new Array(n).fill(null),
      promptLogprobs: new Array(n).fill(null),
      failures: new Array(n).fill(null),
    };
    for (const slice of sliceStep(input, this.#parts.maxRows)) {
      const hidden = this.#parts.decoder.forward(this.#parts.batchBuffer.write(input, slice));
      this.#scorePrompts(input, slice, hidden, results);
      if (!input.isPartial) this.#sampleTokens(input, slice, hidden, results);
    }
    const isMissing = (tokenId: number, i: number) => tokenId === -1 && !results.failures[i];
    if (!input.isPartial && results.tokenIds.some(isMissing)) {
      throw new RangeError("a sequence has no rows in its step");
    }
    return {
      stepId: input.stepId,
      tokenIds: results.tokenIds,
      ...(results.logprobs.some(Boolean) && { logprobs: results.logprobs }),
      ...(results.promptLogprobs.some(Boolean) && { promptLogprobs: results.promptLogprobs }),
      ...(results.failures.some(Boolean) && { failures: results.failures }),
      latencyMs: performance.now() - startedMs,
    };
  }

  // deno-lint-ignore require-await -- asynchronous for executors on other devices
  async close(): Promise<void> {
    this.#parts.kernels.close();
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

  #swap(input: StepInput): void {
    const { blocks, swapBlocks } = this.#parts;
    const { numBlocks, numSwapBlocks } = this.info;
    this.#copyBlocks(input.swapOut, blocks, numBlocks, swapBlocks, numSwapBlocks);
    this.#copyBlocks(input.swapIn, swapBlocks, numSwapBlocks, blocks, numBlocks);
  }

  /** Copies whole blocks; `pairs` are [source block, destination block]. */
  #copyBlocks(
    pairs: Int32Array,
    source: KernelAddress,
    numSource: number,
    destination: KernelAddress,
    numDestination: number,
  ): void {
    const bytes = blockBytes(this.info.layout);
    for (let i = 0; i < pairs.length; i += 2) {
      const [from, to] = pairs.subarray(i, i + 2);
      if (from < 0 || from >= numSource || to < 0 || to >= numDestination) {
        throw new RangeError(`copy of block ${from} of ${numSource} to ${to} of ${numDestination}`);
      }
      const at = (address: KernelAddress, block: number) => address + BigInt(block * bytes);
      this.#parts.kernels.copy(at(destination, to), at(source, from), bytes);
    }
  }

  /**
   * Chooses the next token of every sequence whose last row is in the slice. A sequence fails if the
   * model computes NaN or infinity for it.
   */
  #sampleTokens(input: StepInput, slice: Slice, hidden: KernelAddress, results: Results): void {
    const { head } = this.#parts;
    const sampler = this.#sampler;
    const ending = slice.filter((part) => part.isLast);
    for (const parts of chunks(ending, head.maxRows)) {
      head.compute(hidden, parts.map((part) => lastRow(slice, part)));
      const handles = parts.map((part) => input.handles[part.index]);
      const greedy = handles.map((handle) => sampler.isPlainGreedy(handle));
      const best = greedy.includes(true) ? head.argmax(parts.length) : null;
      parts.forEach(({ index }, i) => {
        if (best && greedy[i] && Number.isFinite(head.row(i)[best[i]])) {
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

  /**
   * Computes log probabilities of prompt tokens for the sequences that asked. A prefill that recomputes a
   * preempted sequence has output tokens in its context and gives none: the first prefill gave them.
   */
  #scorePrompts(input: StepInput, slice: Slice, hidden: KernelAddress, results: Results): void {
    if (input.kind !== "prefill") return;
    const { head } = this.#parts;
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
        head.compute(hidden, chunk);
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
