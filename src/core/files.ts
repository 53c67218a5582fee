import { existsSync } from "node:fs";
import { UsageError } from "./errors.ts";
import { fileProblem } from "./file_problem.ts";

/**
 * Checks before a long run that its results can be written. An existing file is left as it is.
 * @throws {UsageError} they cannot
 */
export function checkWritable(path: string): void {
  try {
    const isThere = existsSync(path);
    Deno.openSync(path, { append: true, create: true }).close();
    if (!isThere) Deno.removeSync(path);
  } catch (error) {
    throw new UsageError(`cannot write ${path}: ${fileProblem(error)}`);
  }
}

/** Removes a file, or a directory with all that is in it; somebody else may do the same. */
export function removeIfPresent(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
