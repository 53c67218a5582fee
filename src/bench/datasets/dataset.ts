/** Where the requests of a load come from. */
import { UsageError } from "../../core/errors.ts";
import type { Random } from "../../core/random.ts";
import { streamOf } from "../../workload/generate.ts";
import type { DatasetRequest } from "../load_request.ts";
import type { TokenCounter } from "../token_counter.ts";
import type { PromptMaker } from "./prompt_maker.ts";

export interface DatasetOptions {
  /** Null for a dataset without a file. */
  readonly path: string | null;
  readonly numPrompts: number;
  readonly seed: number;
  /** Whether rows are used again if the file has fewer than `numPrompts`. */
  readonly oversample: boolean;
  readonly shuffle: boolean;
  /** Whether requests keep the dataset's times, and hence its order. */
  readonly keepsTimes: boolean;
  /** Output length of all requests; null for that of the dataset. */
  readonly outputTokens: number | null;
  readonly random: RandomLengths;
  readonly counter: TokenCounter;
  readonly prompts: PromptMaker;
  /** Called with what the user should know: rows left out, rows used twice. */
  readonly onNotice: (text: string) => void;
}

/** Lengths of the dataset `random`, as vLLM's `--random-*`. */
export interface RandomLengths {
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Lengths are drawn from the mean times 1 - ratio to the mean times 1 + ratio. */
  readonly rangeRatio: number;
  /** Tokens that all prompts begin with, added to `inputTokens`. */
  readonly prefixTokens: number;
}

export interface Dataset {
  /** Value of `--dataset-name`. */
  readonly name: string;
  readonly needsFile: boolean;
  /** Whether its requests have times. */
  readonly hasTimes: boolean;
  /** @throws {UsageError} the file cannot be read, or a row is wrong; names file and row */
  load(options: DatasetOptions): Promise<DatasetRequest[]>;
}

/** The rows to use, chosen and ordered as the options say. @throws {UsageError} there are none */
export function chooseRows<Row>(rows: readonly Row[], options: DatasetOptions): Row[] {
  const { path, numPrompts, seed, oversample, shuffle, keepsTimes, onNotice } = options;
  if (rows.length === 0) throw new UsageError(`The dataset ${path} has no requests.`);
  const random = streamOf(seed, "rows");
  const ordered = shuffle && !keepsTimes ? shuffled(rows, random) : [...rows];
  const chosen = ordered.slice(0, numPrompts);
  if (chosen.length === numPrompts) return chosen;
  if (!oversample || keepsTimes) {
    onNotice(`${path} has ${chosen.length} requests, fewer than --num-prompts ${numPrompts}.`);
    return chosen;
  }
  onNotice(
    `${path} has ${chosen.length} requests, fewer than --num-prompts ${numPrompts}: some are sent ` +
      "more than once (--no-oversample does without).",
  );
  while (chosen.length < numPrompts) chosen.push(ordered[random.below(ordered.length)]);
  return chosen;
}

function shuffled<Row>(rows: readonly Row[], random: Random): Row[] {
  const result = [...rows];
  for (let i = result.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}
