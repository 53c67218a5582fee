/** The kernels of sampling.cu: the choice of tokens on the device, and the layouts of what it reads and writes. */
import { type Kernel, KernelDriver, type ParameterType } from "../cuda/kernels.ts";
import type { OpenOptions } from "../library.ts";
import { kernelImages } from "./kernel_images.ts";

/** Words of `RowChoice`, and most alternatives that a row can report. */
export const rowChoiceWords = 16, mostTopTokens = 32;
/** Words of `Chosen` and of `TopToken`. */
export const chosenWords = 8, topTokenWords = 2;

/** What a row asks for; see `RowChoice` of sampling.cu. */
export interface RowChoice {
  /** Draws the token by weights; else the largest logit's is taken. */
  readonly draws: boolean;
  readonly inverseTemperature: number;
  /** 0: no cut. */
  readonly topK: number;
  /** 1 - top-p; -1: no cut. */
  readonly dropShare: number;
  /** Tokens that weigh less are out; 0: no cut. */
  readonly leastWeight: number;
  /** A safe integer. */
  readonly seed: number;
  readonly position: number;
  /** Most likely tokens to report, up to {@linkcode mostTopTokens}; -1: no log probabilities. */
  readonly numTop: number;
  /** First word of the row's edits, even; -1: none. */
  readonly edits: number;
}

/** How the logits of a row change before the choice. No list names a token twice. */
export interface LogitEdits {
  readonly bias: readonly (readonly [token: number, bias: number])[];
  /** Null: all tokens. */
  readonly allowed: readonly number[] | null;
  /** Impossible, unless nothing is possible then. */
  readonly excluded: readonly number[];
  /** Impossible. */
  readonly ends: readonly number[];
  /** The ends stay possible where nothing else is. */
  readonly keepsEnds: boolean;
  /** Tokens of prompt and output, and how often the output has them. */
  readonly counts: ReadonlyMap<number, number>;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
}

/** What the device made of a row; see `Chosen` of sampling.cu. */
export interface ChosenToken {
  /** With `garbage` the first token whose logit is NaN or infinite. */
  readonly token: number;
  readonly status: "chosen" | "garbage" | "nothing";
  readonly rank: number;
  /** Tokens that the cuts have left. */
  readonly kept: number;
  readonly largest: number;
  readonly value: number;
  readonly totalWeight: number;
  /** The most likely tokens in order, with their logits. */
  readonly top: readonly (readonly [token: number, value: number])[];
}

const biasWords = 4, entryWords = 2, editHeaderWords = 14;

/** Words that {@linkcode writeEdits} needs. */
export function editWords({ bias, allowed, excluded, ends, counts }: LogitEdits): number {
  const entries = (allowed?.length ?? 0) + excluded.length + ends.length + counts.size;
  return editHeaderWords + biasWords * bias.length + entryWords * entries;
}

/** Writes edits from word `at` on, an even number. */
export function writeEdits(words: Int32Array<ArrayBuffer>, at: number, edits: LogitEdits): void {
  const view = new DataView(words.buffer, words.byteOffset + 4 * at);
  const { bias, allowed, excluded, ends, counts } = edits;
  const header = [
    ...[bias.length, allowed?.length ?? -1, excluded.length, ends.length, counts.size],
    ...[edits.keepsEnds ? 1 : 0, 0, 0],
  ];
  words.set(header, at);
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = edits;
  [repetitionPenalty, frequencyPenalty, presencePenalty].forEach((penalty, i) =>
    view.setFloat64(4 * header.length + 8 * i, penalty, true)
  );
  let word = editHeaderWords;
  for (const [token, value] of bias) {
    view.setInt32(4 * word, token, true);
    view.setFloat64(4 * word + 8, value, true);
    word += biasWords;
  }
  for (const list of [allowed ?? [], excluded, ends]) {
    for (const token of list) {
      words[at + word] = token;
      word += entryWords;
    }
  }
  for (const [token, count] of counts) {
    words[at + word] = token;
    words[at + word + 1] = count;
    word += entryWords;
  }
}

/** Writes the row `index`; null: the row is left alone. */
export function writeRowChoice(
  words: Int32Array<ArrayBuffer>,
  index: number,
  choice: RowChoice | null,
): void {
  const at = index * rowChoiceWords;
  words.fill(0, at, at + rowChoiceWords);
  if (choice === null) return;
  const view = new DataView(words.buffer, words.byteOffset + 4 * at);
  view.setFloat64(0, choice.inverseTemperature, true);
  view.setFloat64(8, choice.dropShare, true);
  view.setFloat64(16, choice.leastWeight, true);
  const seedHigh = Math.floor(choice.seed / 2 ** 32);
  words.set(
    [choice.seed, seedHigh, choice.position, choice.topK, choice.numTop, choice.edits],
    at + 6,
  );
  words[at + 12] = choice.draws ? 2 : 1;
}

/**
 * Reads the row `index`.
 * @param chosen [rows] of `Chosen`
 * @param top [rows, mostTopTokens] of `TopToken`
 */
export function readChosen(
  chosen: Int32Array<ArrayBuffer>,
  top: Int32Array<ArrayBuffer>,
  index: number,
  numTop: number,
): ChosenToken {
  const at = index * chosenWords;
  const view = new DataView(chosen.buffer, chosen.byteOffset + 4 * at);
  const [token, status, rank, kept] = chosen.subarray(at, at + 4);
  const topView = new DataView(top.buffer, top.byteOffset);
  const first = index * mostTopTokens * topTokenWords;
  const count = status === 0 ? Math.max(0, Math.min(numTop, kept)) : 0;
  return {
    token,
    status: status === 0 ? "chosen" : status === 1 ? "garbage" : "nothing",
    rank,
    kept,
    largest: view.getFloat32(16, true),
    value: view.getFloat32(20, true),
    totalWeight: Number(view.getBigUint64(24, true)),
    top: Array.from({ length: count }, (_, n) => {
      const word = first + n * topTokenWords;
      return [top[word], topView.getFloat32(4 * (word + 1), true)] as const;
    }),
  };
}

/** Addresses of what the choice reads and writes; see `choose_token` of sampling.cu. */
export interface ChoiceTables {
  /** float32 [rows, width] */
  readonly logits: bigint;
  /** `RowChoice` [rows] */
  readonly choices: bigint;
  /** Words of edits. */
  readonly edits: bigint;
  /** float64: exp(-k / 64) for k from 0 to 3201. */
  readonly expTable: bigint;
  /** u64 [rows, width], scratch. */
  readonly weights: bigint;
  /** `Chosen` [rows] */
  readonly chosen: bigint;
  /** int32 [rows] */
  readonly tokens: bigint;
  /** `TopToken` [rows, mostTopTokens] */
  readonly top: bigint;
}

/** Threads of a block; the choice does not depend on their number. */
function threadsFor(width: number): number {
  return width > 8192 ? 1024 : width > 1024 ? 256 : 64;
}

/** The kernels of sampling.cu, loaded into the device that is current on the calling thread. */
export class SamplingKernels {
  readonly #driver: KernelDriver;
  readonly #module: bigint;
  readonly #stream: bigint;
  readonly #edit: Kernel;
  readonly #choose: Kernel;
  readonly #take: Kernel;

  /**
   * @param stream in whose order everything is launched
   * @throws {LibraryNotFoundError} without libcuda
   * @throws {CudaError} if the driver refuses the kernels
   */
  constructor(stream: bigint, options: OpenOptions = {}) {
    this.#driver = KernelDriver.open(options);
    const { sm_90a, ptx } = kernelImages.sampling;
    this.#module = this.#driver.loadFirst([sm_90a, ptx]);
    this.#stream = stream;
    const kernel = (name: string, types: readonly ParameterType[]) =>
      this.#driver.kernel(this.#module, name, types);
    const pointers = (count: number) => new Array<ParameterType>(count).fill("pointer");
    this.#edit = kernel("edit_logits", [...pointers(3), "i32"]);
    this.#choose = kernel("choose_token", [
      ...[...pointers(4), "f64" as const, ...pointers(3)],
      ...["i32", "i32"] as const,
    ]);
    this.#take = kernel("take_tokens", [...pointers(3), "i32"]);
  }

  /** Changes the logits of rows that have edits. @param threads of a block; for tests */
  edit({ logits, choices, edits }: ChoiceTables, rows: number, width: number, threads?: number) {
    this.#launch(this.#edit, rows, threads ?? threadsFor(width), [logits, choices, edits, width]);
  }

  /** Chooses a token for each row. @param threads of a block; for tests */
  choose(
    tables: ChoiceTables,
    largestWeight: number,
    rows: number,
    width: number,
    threads?: number,
  ): void {
    const { logits, choices, expTable, weights, chosen, tokens, top } = tables;
    this.#launch(this.#choose, rows, threads ?? threadsFor(width), [
      ...[logits, choices, expTable, weights, largestWeight, chosen, tokens, top, width],
      mostTopTokens,
    ]);
  }

  /**
   * tokens[i] = chosen[sources[i]] where that is not negative.
   * @param sources int32 [rows]
   */
  take(chosen: bigint, sources: bigint, tokens: bigint, rows: number): void {
    this.#launch(this.#take, Math.ceil(rows / 256), 256, [chosen, sources, tokens, rows]);
  }

  /** Unloads the kernels, once no launch is under way. */
  close(): void {
    this.#driver.unloadModule(this.#module);
  }

  #launch(kernel: Kernel, blocks: number, threads: number, values: readonly (bigint | number)[]) {
    kernel.launch(
      { grid: [blocks, 1, 1], block: [threads, 1, 1], stream: this.#stream },
      values,
    );
  }
}
