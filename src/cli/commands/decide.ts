/** `llumnix decide`: the cluster's decisions on records of a file, one answer a line. */
import { LlumnixError, UsageError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import type { Value } from "../arguments/argument.ts";
import { decide } from "../decide/decide.ts";
import type { DecisionKind } from "../decide/records.ts";

/**
 * Answers every line of the input.
 * @param given arguments of the command line, by name
 * @throws {UsageError} a file that cannot be read, or the first line that is wrong, by its number
 */
export async function runDecide(given: ReadonlyMap<string, Value>): Promise<number> {
  const kind = given.get("kind") as DecisionKind;
  const path = (given.get("input") ?? "-") as string;
  const source = path === "-" ? "standard input" : path;
  let lineNumber = 0;
  for await (const lines of linesOf(await open(path))) {
    const answers: string[] = [];
    try {
      for (const line of lines) {
        lineNumber++;
        if (line.trim() !== "") answers.push(JSON.stringify(decide(kind, parse(line), given)));
      }
    } catch (error) {
      if (!(error instanceof LlumnixError)) throw error;
      throw new UsageError(`${source} line ${lineNumber}: ${error.message}`);
    } finally {
      if (answers.length > 0) console.log(answers.join("\n"));
    }
  }
  return 0;
}

async function open(path: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  if (path === "-") return Deno.stdin.readable;
  try {
    if ((await Deno.stat(path)).isDirectory) throw new Deno.errors.IsADirectory();
    return (await Deno.open(path)).readable;
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${fileProblem(error)}`);
  }
}

/** Whole lines, as many as have arrived; the last needs no line end. */
async function* linesOf(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<readonly string[]> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    if (lines.length > 0) yield lines;
  }
  if (rest !== "") yield [rest];
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new UsageError(`not JSON: ${(error as Error).message}`);
  }
}
