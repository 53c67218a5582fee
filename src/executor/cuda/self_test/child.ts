/** The process that runs one attempt of the self-test: its words, and what it prints. */
import type { OpenOptions } from "../../../../ffi/library.ts";
import { ModelError, UnavailableError, UsageError } from "../../../core/errors.ts";
import { runSelfTest, type SelfTestTask } from "./run.ts";

/** A task as a word of a command line. */
export function encodeTask(task: SelfTestTask): string {
  return JSON.stringify(task);
}

/** Errors of a device or model that cannot be used as it is: they say nothing of what its kernels compute. */
const refusals = [UsageError, UnavailableError, ModelError];

/**
 * Runs the task of a command line, and prints a line of JSON: `cases`, where Infinity is null; `failure`, how the
 * kernels failed; or `unable`, why they were not tried.
 * @param libraries how the libraries are opened; for tests
 * @throws {UsageError} the word is no task
 */
export async function runSelfTestChild(word: string, libraries: OpenOptions = {}): Promise<void> {
  let task: SelfTestTask;
  try {
    task = JSON.parse(word);
  } catch (error) {
    throw new UsageError("`child` is for the program's own processes", { cause: error });
  }
  let answer: Record<string, unknown>;
  try {
    answer = { cases: await runSelfTest(task, libraries) };
  } catch (error) {
    const isRefusal = refusals.some((kind) => error instanceof kind);
    answer = { [isRefusal ? "unable" : "failure"]: (error as Error).message };
  }
  console.log(JSON.stringify(answer));
}
