/** What `llumnix doctor` does in other processes, as `llumnix doctor child ...`. */
import { LibraryVersionError } from "../../../ffi/library.ts";
import { type LibraryReport, surveyLibrary, surveyUcx } from "../../../ffi/survey.ts";
import { UsageError } from "../../core/errors.ts";
import { runCopiesChild } from "./host_copies.ts";

/** @throws {UsageError} the words are not those of `host.ts` or `host_copies.ts` */
export async function runChild([task, ...words]: readonly string[]): Promise<number> {
  if (task === "ucx-library" && words.length === 0) return answer(ucxLibrary);
  if (task === "ucx" && words.length === 1) return answer(() => surveyUcx({ from: words[0] }));
  if (task === "cuda-self-test" && words.length === 1) {
    const { runSelfTestChild } = await import("../../executor/cuda/self_test/child.ts");
    await runSelfTestChild(words[0]);
    return 0;
  }
  if (task === "copies" && words.length === 4 && words.slice(1).every(isCount)) {
    await runCopiesChild(words[0], Number(words[1]), Number(words[2]), BigInt(words[3]));
    return 0;
  }
  throw new UsageError("`child` is for the doctor's own processes: run `llumnix doctor`");
}

function isCount(word: string): boolean {
  return /^\d{1,15}$/.test(word); // exact as a number, and every address has fewer digits
}

/** Prints what was found, or why nothing was. */
function answer(find: () => unknown): number {
  let found: Record<string, unknown>;
  try {
    found = { result: find() };
  } catch (error) {
    found = { failure: (error as Error).message };
  }
  console.log(JSON.stringify(found));
  return 0;
}

function ucxLibrary(): LibraryReport {
  try {
    return surveyLibrary("ucp");
  } catch (error) {
    if (!(error instanceof LibraryVersionError)) throw error;
    const { library: name, path, version, message: failure } = error;
    return { name, path, version, softwareDevice: false, others: [], failure };
  }
}
