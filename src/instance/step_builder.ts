import type { SequenceStart, StepInput } from "../executor/executor.ts";
import type { Schedule } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/**
 * Turns decisions of the scheduler into the executor's arrays, and keeps the executor's names of
 * sequences. The arrays are views of buffers that the next step overwrites.
 */
export class StepBuilder {
  #stepId = 0;
  #handles = new Int32Array(16);
  #tokenIds = new Int32Array(16);
  #queryStarts = new Int32Array(16);
  #contextLens = new Int32Array(16);
  #blockTables = new Int32Array(16);
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

  /** Writes the step that runs `schedule`. */
  build(schedule: Schedule): StepInput {
    const { sequences, kind, numBatchedTokens } = schedule;
    const numSeqs = sequences.length;
    const maxBlocks = this.hasCache ? longestTable(sequences) : 0;
    this.#handles = withCapacity(this.#handles, numSeqs);
    const numTokenIds = this.hasCache ? numBatchedTokens : 0;
    this.#tokenIds = withCapacity(this.#tokenIds, numTokenIds);
    this.#queryStarts = withCapacity(this.#queryStarts, numSeqs + 1);
    this.#contextLens = withCapacity(this.#contextLens, numSeqs);
    this.#blockTables = withCapacity(this.#blockTables, numSeqs * maxBlocks);
    const added = this.#added, removed = this.#removed;
    this.#added = [];
    this.#removed = [];

    // Locals, for this is the engine's innermost loop.
    const handles = this.#handles, queryStarts = this.#queryStarts;
    const contextLens = this.#contextLens;
    let numTokens = 0;
    for (let i = 0; i < numSeqs; i++) {
      const sequence = sequences[i], length = sequence.lengthTokens;
      if (sequence.handle === null) added.push(this.#announce(sequence));
      handles[i] = sequence.handle!;
      queryStarts[i] = numTokens;
      contextLens[i] = length;
      numTokens += kind === "prefill" ? length : 1;
    }
    queryStarts[numSeqs] = numTokens;
    if (this.hasCache) this.#writeCacheRows(schedule, maxBlocks);

    return {
      stepId: ++this.#stepId,
      kind,
      removed,
      added,
      swapOut: Int32Array.from(schedule.swapOut),
      swapIn: Int32Array.from(schedule.swapIn),
      handles: this.#handles.subarray(0, numSeqs),
      tokenIds: this.#tokenIds.subarray(0, numTokenIds),
      queryStarts: this.#queryStarts.subarray(0, numSeqs + 1),
      contextLens: this.#contextLens.subarray(0, numSeqs),
      blockTables: this.#blockTables.subarray(0, numSeqs * maxBlocks),
      maxBlocks,
    };
  }

  /** The sequence has ended: the next step tells the executor, if it ever knew it. */
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

  /** What an executor needs to compute and to find its cache. */
  #writeCacheRows({ sequences, kind }: Schedule, maxBlocks: number): void {
    const tokenIds = this.#tokenIds, blockTables = this.#blockTables;
    let numTokens = 0;
    for (let i = 0; i < sequences.length; i++) {
      const sequence = sequences[i];
      if (kind === "prefill") numTokens = this.#writeAllTokens(sequence, numTokens);
      else tokenIds[numTokens++] = sequence.lastTokenId;
      const { blocks } = sequence, numBlocks = blocks.length, row = i * maxBlocks;
      for (let j = 0; j < numBlocks; j++) blockTables[row + j] = blocks[j];
    }
  }

  #writeAllTokens(sequence: Sequence, at: number): number {
    const { promptTokenIds, outputTokenIds } = sequence;
    for (let i = 0; i < promptTokenIds.length; i++) this.#tokenIds[at++] = promptTokenIds[i];
    for (let i = 0; i < outputTokenIds.length; i++) this.#tokenIds[at++] = outputTokenIds[i];
    return at;
  }
}

function longestTable(sequences: readonly Sequence[]): number {
  let blocks = 0;
  for (const sequence of sequences) blocks = Math.max(blocks, sequence.blocks.length);
  return blocks;
}

/** `array`, or a larger one when it is too small for `length`; contents are not kept. */
function withCapacity(array: Int32Array<ArrayBuffer>, length: number): Int32Array<ArrayBuffer> {
  return array.length >= length ? array : new Int32Array(Math.max(length, 2 * array.length));
}
