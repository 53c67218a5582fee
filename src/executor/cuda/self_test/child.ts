/** The process that runs one attempt of the self-test: its words, and what it prints. */
import { CudaError, DeviceBusyError, OutOfMemoryError } from "../../../../ffi/cuda/errors.ts";
import { UsageError } from "../../../core/errors.ts";
import { runSelfTest, type SelfTestTask } from "./run.ts";

/** A task as a word of a command line. */
export function encodeTask(task: SelfTestTask): string {
  return JSON.stringify(task);
}

/**
 * Runs the task of a command line, and prints a line of JSON: `cases`, or what {@linkcode failureOf} gives.
 * Infinity is null.
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
    answer = failureOf(error as Error);
  }
  console.log(JSON.stringify(answer));
}

/**
 * What an error of the test says: `failure` of the kernels, or `unable`, that they could not be tried. If the
 * device is busy or has too little memory, the start after the test says so, and what to change. Kernels that
 * cannot be loaded have failed: those of a plain path may be loaded.
 */
export function failureOf(error: Error): { failure: string } | { unable: string } {
  const told = error.cause instanceof CudaError ? error.cause : error;
  const isUnable = told instanceof UsageError || told instanceof DeviceBusyError ||
    told instanceof OutOfMemoryError;
  return isUnable ? { unable: error.message } : { failure: error.message };
}
