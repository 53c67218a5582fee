/** The process that runs one attempt of the self-test: its words, and what it prints. */
import { UsageError } from "../../../core/errors.ts";
import { runSelfTest, type SelfTestTask } from "./run.ts";

/** A task as a word of a command line. */
export function encodeTask(task: SelfTestTask): string {
  return JSON.stringify(task);
}

/**
 * Runs the task of a command line, and prints a line of JSON: `cases`, or `failure`. Infinity is null.
 * @throws {UsageError} the word is no task
 */
export async function runSelfTestChild(word: string): Promise<void> {
  let task: SelfTestTask;
  try {
    task = JSON.parse(word);
  } catch (error) {
    throw new UsageError("`child` is for the program's own processes", { cause: error });
  }
  let answer: Record<string, unknown>;
  try {
    answer = { cases: await runSelfTest(task) };
  } catch (error) {
    answer = { failure: (error as Error).message };
  }
  console.log(JSON.stringify(answer));
}
