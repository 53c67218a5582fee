/** Requests that were sent one at a time, with pauses between them, from a file of `llumnix bench --csv FILE`. */
import { UsageError } from "../../core/errors.ts";
import { linesOf } from "../../workload/text_file.ts";

export interface RequestSample {
  readonly promptTokens: number;
  readonly ttftMs: number;
}

const columnNames = ["due_s", "end_s", "ttft_ms", "prompt_tokens", "error"] as const;
/** Fewer say little about the median. */
const MIN_REQUESTS = 10;
const HOW =
  "make it with llumnix bench --max-concurrency 1 --request-rate 3 --burstiness inf --csv FILE";

/**
 * The requests of a file; failed ones are left out.
 * @throws {UsageError} it cannot be read, is of another kind, has a wrong row (named), too few requests, or
 *   requests that ran at the same time
 */
export function readRequestSamples(path: string): RequestSample[] {
  const samples: RequestSample[] = [];
  let places: readonly number[] | null = null;
  let lastEnd = -Infinity;
  for (const { number, text } of linesOf(path)) {
    const cells = text.split(",");
    if (places === null) {
      places = columnNames.map((name) => cells.indexOf(name));
      const missing = columnNames.filter((_, i) => places![i] < 0);
      if (missing.length === 0) continue;
      throw new UsageError(`The file ${path} lacks the columns ${missing.join(", ")}: ${HOW}.`);
    }
    // The error comes last, and may have commas of its own.
    const [due, end, ttft, prompt, error] = places.map((place) => cells[place] ?? "");
    if (error !== "") continue;
    const [dueS, endS, ttftMs, promptTokens] = [due, end, ttft, prompt].map((cell) =>
      cell === "" ? NaN : Number(cell)
    );
    if (!(dueS >= 0 && endS >= dueS && ttftMs > 0 && promptTokens > 0)) {
      throw new UsageError(
        `The file ${path} is wrong in row ${number}: expected numbers for ` +
          "due_s, end_s, ttft_ms and prompt_tokens.",
      );
    }
    if (dueS < lastEnd) {
      throw new UsageError(
        `The requests of ${path} ran at the same time (row ${number}), so their time to first token has ` +
          `the steps of others: ${HOW}.`,
      );
    }
    lastEnd = endS;
    samples.push({ promptTokens, ttftMs });
  }
  if (samples.length >= MIN_REQUESTS) return samples;
  throw new UsageError(
    `The file ${path} has ${samples.length} requests that did not fail, too few: expected ` +
      `${MIN_REQUESTS} or more.`,
  );
}
