import {
  type ChoiceTables,
  type ChosenToken,
  chosenWords,
  editWords,
  mostTopTokens,
  readChosen,
  rowChoiceWords,
  type SamplingKernels,
  topTokenWords,
  writeEdits,
  writeRowChoice,
} from "../../../ffi/cuda_kernels/sampling_kernels.ts";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { expTable, largestWeight } from "../sampling/distribution.ts";
import type { TokenRequest } from "../sampling/token_request.ts";
import type { ChosenTokens, TokenChooser } from "../transformer/transformer_executor.ts";
import type { DeviceMemory } from "./device_memory.ts";
import { PinnedWords } from "./pinned_words.ts";

/** Most words of edits in a step: the penalties of 128 sequences of 4,000 different tokens. */
const EDIT_WORDS = 1 << 20;

export interface ChooserArgs {
  readonly cuda: Cuda;
  readonly stream: bigint;
  readonly memory: DeviceMemory;
  readonly kernels: SamplingKernels;
  readonly vocabSize: number;
  /** Sequences of a step. */
  readonly maxSequences: number;
  /** Rows of `logits` at once. */
  readonly maxRows: number;
  /** float32 [maxRows, vocab] */
  readonly logits: bigint;
  /** Default {@linkcode EDIT_WORDS}; for tests. */
  readonly editWords?: number;
}

/** Pinned memory of one step. Two steps can be under way: each has its own. */
interface StepWords {
  /** `RowChoice` [maxSequences], then edits. */
  readonly requests: PinnedWords;
  readonly chosen: PinnedWords;
  readonly top: PinnedWords;
  readonly rows: { readonly index: number; readonly numTop: number }[];
}

/** Chooses tokens on a CUDA device, by the kernels of sampling.cu. */
export class CudaTokenChooser implements TokenChooser {
  readonly maxRows: number;
  /** int32 [maxSequences]: the tokens of the latest step, by the index of their sequence; -1: none. */
  readonly tokens: bigint;
  readonly #args: ChooserArgs;
  readonly #tables: Omit<ChoiceTables, "logits" | "edits">;
  readonly #edits: bigint;
  readonly #editWords: number;
  readonly #steps: readonly StepWords[];
  #turn = 0;
  #editsUsed = 0;

  constructor(args: ChooserArgs) {
    const { cuda, stream, memory, vocabSize, maxSequences } = args;
    const maxRows = Math.min(args.maxRows, maxSequences);
    this.maxRows = maxRows;
    this.#args = args;
    this.#editWords = args.editWords ?? EDIT_WORDS;
    const take = (byteLength: number) =>
      memory.allocate(byteLength, "the sampler", "Lower --max-num-seqs, or use a smaller model.");
    const topWords = maxSequences * mostTopTokens * topTokenWords;
    this.tokens = take(maxSequences * 4);
    this.#edits = take(this.#editWords * 4);
    this.#tables = {
      choices: take(maxSequences * rowChoiceWords * 4),
      expTable: take(expTable.byteLength),
      weights: take(maxRows * vocabSize * 8),
      chosen: take(maxSequences * chosenWords * 4),
      tokens: this.tokens,
      top: take(topWords * 4),
    };
    this.#steps = [0, 1].map(() => ({
      requests: new PinnedWords(cuda, stream, maxSequences * rowChoiceWords + this.#editWords),
      chosen: new PinnedWords(cuda, stream, maxSequences * chosenWords),
      top: new PinnedWords(cuda, stream, topWords),
      rows: [],
    }));
    this.#sendExpTable();
  }

  begin(): void {
    this.#turn = 1 - this.#turn;
    this.#editsUsed = 0;
    this.#step.rows.length = 0;
    this.#step.requests.wait();
  }

  choose(requests: readonly (TokenRequest | null)[], firstIndex: number): boolean[] {
    const { kernels, vocabSize, maxSequences, logits } = this.#args;
    const step = this.#step, { requests: words } = step;
    const firstEdit = this.#editsUsed;
    const firstChoice = firstIndex * rowChoiceWords, edits = maxSequences * rowChoiceWords;
    const accepted = requests.map((request, i) => {
      const index = firstIndex + i;
      const at = request === null ? null : this.#write(request, edits);
      const choice = at === null ? null : { ...request!.choice, edits: at };
      writeRowChoice(words.words, index, choice);
      if (choice !== null) step.rows.push({ index, numTop: choice.numTop });
      return choice !== null;
    });
    if (!accepted.includes(true)) return accepted;
    const count = requests.length;
    const { choices, chosen, tokens, top } = this.#tables;
    const at = (table: bigint, wordsOfRow: number) => table + BigInt(firstIndex * wordsOfRow * 4);
    words.send(choices + BigInt(firstChoice * 4), count * rowChoiceWords, firstChoice);
    const numEdits = this.#editsUsed - firstEdit;
    if (numEdits > 0) {
      words.send(this.#edits + BigInt(firstEdit * 4), numEdits, edits + firstEdit);
    }
    const tables = {
      ...this.#tables,
      logits,
      edits: this.#edits,
      choices: at(choices, rowChoiceWords),
      chosen: at(chosen, chosenWords),
      tokens: at(tokens, 1),
      top: at(top, mostTopTokens * topTokenWords),
    };
    if (numEdits > 0) kernels.edit(tables, count, vocabSize);
    kernels.choose(tables, largestWeight(vocabSize), count, vocabSize);
    step.chosen.fetch(tables.chosen, count * chosenWords, firstIndex * chosenWords);
    const topOfRow = mostTopTokens * topTokenWords;
    if (requests.some((request) => request !== null && request.choice.numTop > 0)) {
      step.top.fetch(tables.top, count * topOfRow, firstIndex * topOfRow);
    }
    return accepted;
  }

  end(): () => ChosenTokens {
    const step = this.#step;
    return () => {
      step.chosen.wait();
      step.top.wait();
      const { words: chosen } = step.chosen, { words: top } = step.top;
      const read = ({ index, numTop }: StepWords["rows"][number]): [number, ChosenToken] => [
        index,
        readChosen(chosen, top, index, numTop),
      ];
      return new Map(step.rows.map(read));
    };
  }

  /** Gives rows of a step the tokens that the step before chose. */
  takeTokens(sources: bigint, tokens: bigint, rows: number): void {
    this.#args.kernels.take(this.tokens, sources, tokens, rows);
  }

  /** Frees its pinned memory and its kernels, once nothing is under way. */
  close(): void {
    for (const { requests, chosen, top } of this.#steps) {
      for (const words of [requests, chosen, top]) words.close();
    }
    this.#args.kernels.close();
  }

  get #step(): StepWords {
    return this.#steps[this.#turn];
  }

  /** Writes the edits of a request. @returns their first word; -1 without edits; null without room */
  #write({ edits }: TokenRequest, firstWord: number): number | null {
    if (edits === null) return -1;
    const at = this.#editsUsed, length = editWords(edits);
    if (at + length > this.#editWords) return null;
    writeEdits(this.#step.requests.words, firstWord + at, edits);
    this.#editsUsed += Math.ceil(length / 2) * 2;
    return at;
  }

  #sendExpTable(): void {
    const { cuda, stream } = this.#args;
    const words = new PinnedWords(cuda, stream, expTable.byteLength / 4);
    words.words.set(new Int32Array(expTable.buffer));
    words.send(this.#tables.expTable, words.words.length);
    words.wait();
    words.close();
  }
}
