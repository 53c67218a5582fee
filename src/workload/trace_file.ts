/** Reads recorded workloads: JSONL of this program, BurstGPT's CSV, ShareGPT's JSON. */
import * as z from "zod";
import { UsageError } from "../core/errors.ts";
import type { Priority } from "../core/protocol/generate.ts";
import { arrayEntriesOf, linesOf, type Piece } from "./text_file.ts";

/**
 * Longest gap between two requests. Longer gaps are mistakes, such as times in another unit, and would
 * run for long: instances and managers also work while no request comes, and 16 instances take 3 s for
 * a simulated day.
 */
const MAX_GAP_MS = 30 * 86_400_000;

/** A request of a trace; a field is null if the format does not have it. */
export interface TraceRow {
  /** Time since the first row of the trace. */
  readonly arrivalMs: number | null;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly priority: Priority | null;
}

/** Counts the tokens of a text, for traces that hold texts. */
export type CountTokens = (text: string) => number;

/** An English token of a subword vocabulary has about four characters. */
export const estimateTokens: CountTokens = (text) => Math.ceil(text.length / 4);

/** Turns a piece of the file into a row, or into the reason why it is left out; null for a header. */
type ParseRow = (piece: Piece) => TraceRow | string | null;

export interface ReadTraceOptions {
  /** Counts tokens of ShareGPT, which holds texts. */
  readonly countTokens?: CountTokens;
  /** The rows of BurstGPT to read, by their column `Model`; absent for all. */
  readonly burstGptModel?: string;
  /** Called for each row that is left out, with the reason. */
  readonly onLeftOut?: (why: string) => void;
}

/**
 * Reads a trace row by row. The file's extension tells the format: `.jsonl` (time in seconds,
 * prompt_tokens, output_tokens, priority), `.csv` (BurstGPT; failed requests are left out), `.json`
 * (ShareGPT: the first question and its answer; conversations without both are left out).
 * @throws {UsageError} the file cannot be read, its format is unknown, or a row is bad; names the row
 */
export function* readTrace(
  path: string,
  options: ReadTraceOptions = {},
): Generator<TraceRow> {
  let firstMs: number | null = null, lastMs = 0;
  for (const { number, row } of rowsOf(path, options)) {
    if (row.arrivalMs === null) {
      yield row;
      continue;
    }
    firstMs ??= lastMs = row.arrivalMs;
    const gapMs = row.arrivalMs - lastMs;
    if (gapMs < 0) {
      throw badRow(
        path,
        number,
        "its time is before the row above, expected rows in the order of time",
      );
    }
    if (gapMs > MAX_GAP_MS) {
      throw badRow(
        path,
        number,
        `its time is ${gapMs / 1000} s after the row above, expected ${MAX_GAP_MS / 1000} s (30 ` +
          "days) at most",
      );
    }
    lastMs = row.arrivalMs;
    yield { ...row, arrivalMs: row.arrivalMs - firstMs };
  }
}

/** "3 rows left out (failed requests)". */
export function leftOutText(count: number, why: string): string {
  return `${count} row${count === 1 ? "" : "s"} left out (${why})`;
}

function* rowsOf(
  path: string,
  { countTokens = estimateTokens, burstGptModel, onLeftOut = () => {} }: ReadTraceOptions,
): Generator<{ number: number; row: TraceRow }> {
  const { pieces, parse } = openTrace(path, countTokens, burstGptModel);
  let numRows = 0, numLeftOut = 0, why = "";
  for (const piece of pieces) {
    const row = parse(piece);
    if (row === null) continue;
    if (typeof row === "string") {
      numLeftOut++;
      onLeftOut(why = row);
      continue;
    }
    numRows++;
    yield { number: piece.number, row };
  }
  if (numRows > 0) return;
  const reason = numLeftOut > 0 ? `: ${leftOutText(numLeftOut, why)}` : "";
  throw new UsageError(`The trace ${path} has no requests${reason}.`);
}

function openTrace(path: string, countTokens: CountTokens, burstGptModel?: string) {
  if (path.endsWith(".jsonl")) return { pieces: linesOf(path), parse: jsonLineParser(path) };
  if (path.endsWith(".csv")) {
    return { pieces: linesOf(path), parse: burstGptParser(path, burstGptModel) };
  }
  if (path.endsWith(".json")) {
    return { pieces: arrayEntriesOf(path), parse: shareGptParser(path, countTokens) };
  }
  throw new UsageError(
    `The trace ${path} has an unknown format: expected a name that ends in .jsonl, .csv ` +
      `(BurstGPT) or .json (ShareGPT).`,
  );
}

// The message of each schema says what its field must be.
const SECONDS = "a number of seconds, 0 or more";
const TOKENS = "a number of tokens, 1 or more";
const tokens = z.int(TOKENS).positive(TOKENS);
const lineSchema = z.strictObject({
  time: z.number(SECONDS).nonnegative(SECONDS),
  prompt_tokens: tokens,
  output_tokens: tokens,
  priority: z.enum(["high", "normal"], "high or normal").optional(),
});

function jsonLineParser(path: string): ParseRow {
  return (piece) => {
    const line = parseRow(path, piece.number, lineSchema, parseJson(path, piece));
    return {
      arrivalMs: line.time * 1000,
      promptTokens: line.prompt_tokens,
      outputTokens: line.output_tokens,
      priority: line.priority ?? null,
    };
  };
}

const burstGptColumns = ["Timestamp", "Request tokens", "Response tokens"] as const;

/** HPMLL/BurstGPT: a header, then a request per row; a request with 0 response tokens failed. */
function burstGptParser(path: string, model?: string): ParseRow {
  const columns = model === undefined ? burstGptColumns : [...burstGptColumns, "Model"];
  let places: number[] | null = null;
  return ({ number, text }) => {
    const cells = text.replace(/^\ufeff/, "").split(",").map((cell) =>
      cell.trim().replace(/^"(.*)"$/, "$1")
    );
    if (places === null) {
      places = columns.map((column) => cells.indexOf(column));
      const missing = columns.filter((_, i) => places![i] < 0);
      if (missing.length === 0) return null;
      throw badRow(path, number, `a header with the columns ${missing.join(", ")} is missing`);
    }
    if (model !== undefined && cells[places[3]] !== model) {
      return `requests of other models than ${model}`;
    }
    const [seconds, promptTokens, outputTokens] = places.slice(0, 3).map((place, i) => {
      const cell = cells[place] ?? "";
      const value = cell === "" ? NaN : Number(cell);
      if (value >= 0 && (i === 0 ? Number.isFinite(value) : Number.isSafeInteger(value))) {
        return value;
      }
      const expected = i === 0 ? "a number of seconds" : "a number of tokens";
      throw badRow(path, number, `${burstGptColumns[i]} is "${cell}", expected ${expected}`);
    });
    if (promptTokens === 0 || outputTokens === 0) {
      return "failed requests, of 0 request or response tokens";
    }
    return { arrivalMs: seconds * 1000, promptTokens, outputTokens, priority: null };
  };
}

const conversationSchema = z.object({
  conversations: z.array(z.object({ value: z.string("text") }, "a turn"), "a list of turns"),
});

/** The first question of a conversation, and its answer. */
export interface Conversation {
  readonly question: string;
  readonly answer: string;
}

/**
 * As vLLM's benchmark samples ShareGPT: the first two turns of conversations that have them.
 * @returns the reason, if the conversation is left out
 * @throws {UsageError} it is no conversation; names the row
 */
export function parseConversation(path: string, piece: Piece): Conversation | string {
  const json = parseJson(path, piece);
  const { conversations } = parseRow(path, piece.number, conversationSchema, json);
  const [question, answer] = conversations;
  if (!question?.value || !answer?.value) return "conversations without question and answer";
  return { question: question.value, answer: answer.value };
}

function shareGptParser(path: string, countTokens: CountTokens): ParseRow {
  return (piece) => {
    const conversation = parseConversation(path, piece);
    if (typeof conversation === "string") return conversation;
    return {
      arrivalMs: null,
      promptTokens: countTokens(conversation.question),
      outputTokens: countTokens(conversation.answer),
      priority: null,
    };
  };
}

/** @throws {UsageError} the text is not JSON; names the row */
export function parseJson(path: string, { number, text }: Piece): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw badRow(path, number, `it is not JSON: ${(error as Error).message}`);
  }
}

/** @throws {UsageError} the value is not as the schema says, whose messages name what is expected */
export function parseRow<T>(path: string, number: number, schema: z.ZodType<T>, json: unknown): T {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  throw badRow(path, number, problemOf(result.error.issues[0], json));
}

function problemOf(issue: z.core.$ZodIssue, json: unknown): string {
  if (issue.code === "unrecognized_keys") {
    const known = Object.keys(lineSchema.shape).join(", ");
    return `there is no field ${issue.keys[0]}, expected ${known}`;
  }
  if (issue.path.length === 0) return "it is not a JSON object";
  const field = issue.path.join(".");
  const value = issue.path.reduce<unknown>(
    (value, key) => (value as Record<PropertyKey, unknown>)[key],
    json,
  );
  const found = value === undefined ? "missing" : JSON.stringify(value);
  return `${field} is ${found}, expected ${issue.message}`;
}

/** @param problem "its time is before the row above" */
export function badRow(path: string, number: number, problem: string): UsageError {
  return new UsageError(`The trace ${path} is wrong in row ${number}: ${problem}.`);
}
