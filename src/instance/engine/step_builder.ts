import type { SequenceStart, StepInput } from "../../executor/executor.ts";
import type { Schedule } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Writes the scheduler's decisions as the executor's input arrays, and numbers sequences for the
 * executor. The arrays are views of buffers that the next step overwrites.
 */
export class StepBuilder {
  #stepId = 0;
  readonly #handles = new StepArray();
  readonly #tokenIds = new StepArray();
  readonly #queryStarts = new StepArray();
  readonly #contextLens = new StepArray();
  readonly #blockTables = new StepArray();
  #added: SequenceStart[] = [];
  #removed: number[] = [];
  #freeHandles: number[] = [];
  #numHandles = 0;

  /** @param hasCache false for executors whose steps need neither tokens nor block tables */
  constructor(private readonly hasCache = true) {}

  /** Id of the last step that was built; 0 before the first. */
  get stepId(): number {
    return this.#stepId;
  }

  /**
   * Writes the step that runs `schedule`.
   * @param before the step before, if it is still under way
   */
  build(schedule: Schedule, before: Readonly<Schedule> | null = null): StepInput {
    const { sequences, kind, numBatchedTokens } = schedule;
    const numSeqs = sequences.length;
    const maxBlocks = this.hasCache ? longestTable(sequences) : 0;
    const handles = this.#handles.resize(numSeqs);
    const queryStarts = this.#queryStarts.resize(numSeqs + 1);
    const contextLens = this.#contextLens.resize(numSeqs);
    const tokenIds = this.#tokenIds.resize(this.hasCache ? numBatchedTokens : 0);
    const blockTables = this.#blockTables.resize(numSeqs * maxBlocks);
    const added = this.#added, removed = this.#removed;
    this.#added = [];
    this.#removed = [];

    let numTokens = 0;
    for (let i = 0; i < numSeqs; i++) {
      const sequence = sequences[i];
      const length = schedule.isPartial
        ? sequence.numComputedTokens + numBatchedTokens
        : sequence.lengthTokens + sequence.numStepsUnderWay;
      if (sequence.handle === null) added.push(this.#announce(sequence));
      handles[i] = sequence.handle!;
      queryStarts[i] = numTokens;
      contextLens[i] = length;
      numTokens += kind === "prefill" ? length - sequence.numComputedTokens : 1;
    }
    queryStarts[numSeqs] = numTokens;
    if (this.hasCache) writeCacheRows(schedule, tokenIds, blockTables, maxBlocks, before);

    return {
      stepId: ++this.#stepId,
      kind,
      isPartial: schedule.isPartial,
      ...(before !== null && { isAhead: true }),
      removed,
      added,
      swapOut: copiesOf(schedule.swapOut),
      swapIn: copiesOf(schedule.swapIn),
      handles,
      tokenIds,
      queryStarts,
      contextLens,
      blockTables,
      maxBlocks,
    };
  }

  /** The sequence has ended: the next step tells the executor, if the executor knows it. */
  forget(sequence: Sequence): void {
    if (sequence.handle === null) return;
    this.#removed.push(sequence.handle);
    this.#freeHandles.push(sequence.handle);
    sequence.handle = null;
  }

  #announce(sequence: Sequence): SequenceStart {
    const handle = this.#freeHandles.pop() ?? this.#numHandles++;
    sequence.handle = handle;
    return {
      handle,
      params: sequence.params,
      promptTokenIds: sequence.promptTokenIds,
      outputTokenIds: [...sequence.outputTokenIds],
    };
  }
}

/** Writes what the executor needs to compute tokens and to find their KV cache. */
function writeCacheRows(
  { sequences, kind, isPartial, numBatchedTokens }: Schedule,
  tokenIds: Int32Array,
  blockTables: Int32Array,
  maxBlocks: number,
  before: Readonly<Schedule> | null,
): void {
  let numTokens = 0;
  for (let i = 0; i < sequences.length; i++) {
    const sequence = sequences[i];
    if (kind === "prefill") {
      const end = isPartial ? sequence.numComputedTokens + numBatchedTokens : sequence.lengthTokens;
      numTokens = writeTokens(sequence, sequence.numComputedTokens, end, tokenIds, numTokens);
    } else {tokenIds[numTokens++] = before === null
        ? sequence.lastTokenId
        : -1 - indexIn(before, sequence, i);}
    const { blocks } = sequence, numBlocks = blocks.length, row = i * maxBlocks;
    for (let j = 0; j < numBlocks; j++) blockTables[row + j] = blocks[j];
  }
}

/** Index of a sequence in a step. @param likely where to look first */
function indexIn({ sequences }: Readonly<Schedule>, sequence: Sequence, likely: number): number {
  return sequences[likely] === sequence ? likely : sequences.indexOf(sequence);
}

/** Writes the tokens at positions [start, end) of a sequence. */
function writeTokens(
  { promptTokenIds, outputTokenIds }: Sequence,
  start: number,
  end: number,
  tokenIds: Int32Array,
  at: number,
): number {
  const numPrompt = promptTokenIds.length;
  for (let i = start; i < Math.min(end, numPrompt); i++) tokenIds[at++] = promptTokenIds[i];
  for (let i = Math.max(start, numPrompt); i < end; i++) {
    tokenIds[at++] = outputTokenIds[i - numPrompt];
  }
  return at;
}

function longestTable(sequences: readonly Sequence[]): number {
  let blocks = 0;
  for (const sequence of sequences) blocks = Math.max(blocks, sequence.blocks.length);
  return blocks;
}

const noCopies = new Int32Array();

function copiesOf(pairs: readonly number[]): Int32Array {
  return pairs.length === 0 ? noCopies : Int32Array.from(pairs);
}

/** Initial capacity: one entry for each sequence of most steps. */
const INITIAL_ENTRIES = 256;

/**
 * An array that every step writes anew. Most decode steps have the same length and reuse the view.
 */
class StepArray {
  #buffer = new Int32Array(INITIAL_ENTRIES);
  #view = this.#buffer;

  /** Returns the array with a length; contents are not kept. */
  resize(length: number): Int32Array<ArrayBuffer> {
    if (length === this.#view.length) return this.#view;
    if (length > this.#buffer.length) {
      this.#buffer = new Int32Array(Math.max(length, 2 * this.#buffer.length));
    }
    return this.#view = this.#buffer.subarray(0, length);
  }
}
