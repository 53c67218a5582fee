/** The arguments of a process that was started before they were known: see `prepared_instance.ts`. */

import { UsageError } from "../core/errors.ts";

/** Tells `llumnix instance` to read its arguments from standard input, as a list in JSON. */
export const ARGUMENTS_FROM_STDIN = "--arguments-from-stdin";

/**
 * Waits for the arguments.
 * @returns null when the process is not needed any more
 * @throws {UsageError} the input is no list of arguments
 */
export async function givenArguments(
  input: ReadableStream<Uint8Array> = Deno.stdin.readable,
): Promise<string[] | null> {
  const text = await new Response(input).text();
  if (text === "") return null;
  try {
    const words: unknown = JSON.parse(text);
    if (Array.isArray(words) && words.every((word) => typeof word === "string")) return words;
  } catch {
    // told below
  }
  throw new UsageError(
    `${ARGUMENTS_FROM_STDIN} is for processes that \`llumnix serve\` starts: expected a list of ` +
      "arguments in JSON on standard input",
  );
}
