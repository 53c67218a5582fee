/** Reads large text files piece by piece, so that memory does not grow with their size. */
import { UsageError } from "../core/errors.ts";
import { fileProblem } from "../core/file_problem.ts";

const CHUNK_BYTES = 1 << 16;
/** Longest line or array entry that is accepted, in characters. */
const MAX_PIECE_CHARS = 64 << 20;

/** A line or array entry of a file, and its number, from 1. */
export interface Piece {
  readonly number: number;
  readonly text: string;
}

/**
 * The lines of a file without line ends. Empty lines are left out, but counted.
 * @throws {UsageError} the file cannot be read
 */
export function* linesOf(path: string): Generator<Piece> {
  let number = 0;
  let rest = "";
  for (const chunk of chunksOf(path)) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    refuseLong(path, number + 1, rest);
    for (const line of lines) {
      number++;
      const text = line.trim();
      if (text !== "") yield { number, text };
    }
  }
  if (rest.trim() !== "") yield { number: number + 1, text: rest.trim() };
}

/**
 * The entries of a file that holds one JSON array, as JSON texts that are not checked yet.
 * @throws {UsageError} the file cannot be read or does not hold an array
 */
export function* arrayEntriesOf(path: string): Generator<Piece> {
  const scanner = new ArrayScanner();
  let number = 0;
  try {
    for (const chunk of chunksOf(path)) {
      for (const text of scanner.push(chunk)) yield { number: ++number, text };
      refuseLong(path, number + 1, scanner.pending);
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new UsageError(`The trace ${path} ${error.message}.`);
  }
  if (!scanner.isDone) throw new UsageError(`The trace ${path} ends within its JSON array.`);
}

/** Finds the ends of an array's entries: commas and the last bracket outside of all nesting. */
class ArrayScanner {
  /** The text so far of the entry that has not ended. */
  pending = "";
  /** How many brackets are open, the array's own included. Null before the array. */
  #depth: number | null = null;
  #isInString = false;
  #isEscaped = false;

  get isDone(): boolean {
    return this.#depth === 0;
  }

  /**
   * The entries that end within `chunk`.
   * @throws {SyntaxError} there is text outside of the array
   */
  *push(chunk: string): Generator<string> {
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const isOutside = this.#depth === null || this.#depth === 0;
      if (isOutside) {
        if (this.#depth === null && chunk[i] === "[") this.#depth = 1;
        else if (chunk[i].trim() !== "") throw new SyntaxError("is not one JSON array");
        start = i + 1;
      } else if (this.#endsEntry(chunk[i])) {
        const text = (this.pending + chunk.slice(start, i)).trim();
        this.pending = "";
        start = i + 1;
        if (text !== "") yield text;
      }
    }
    this.pending += chunk.slice(start);
  }

  /** Follows one character inside the array. */
  #endsEntry(character: string): boolean {
    if (this.#isInString) {
      if (this.#isEscaped) this.#isEscaped = false;
      else if (character === "\\") this.#isEscaped = true;
      else if (character === '"') this.#isInString = false;
      return false;
    }
    if (character === '"') this.#isInString = true;
    else if (character === "[" || character === "{") this.#depth!++;
    else if (character === "]" || character === "}") return --this.#depth! === 0;
    else if (character === ",") return this.#depth === 1;
    return false;
  }
}

function* chunksOf(path: string): Generator<string> {
  using file = open(path);
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(CHUNK_BYTES);
  for (;;) {
    const count = read(path, file, buffer);
    if (count === null) break;
    yield decoder.decode(buffer.subarray(0, count), { stream: true });
  }
  yield decoder.decode();
}

function open(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function read(path: string, file: Deno.FsFile, buffer: Uint8Array): number | null {
  try {
    return file.readSync(buffer);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): UsageError {
  return new UsageError(`Cannot read ${path}: ${fileProblem(error)}.`, {
    cause: error,
  });
}

function refuseLong(path: string, number: number, text: string): void {
  if (text.length <= MAX_PIECE_CHARS) return;
  throw new UsageError(
    `The trace ${path} is wrong in row ${number}: it is longer than ${MAX_PIECE_CHARS} characters.`,
  );
}
