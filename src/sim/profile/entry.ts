/** Puts a fit into a profile file, beside the entries of other models. */
import type { ModelProfile } from "../../executor/sim/profile.ts";
import { readProfileFile, toProfileJson } from "../../executor/sim/profile_file.ts";
import { refusePickle } from "./step_log.ts";

/** Same model, same degrees of parallelism. */
function isSameEntry(a: ModelProfile, b: ModelProfile): boolean {
  return a.model === b.model && a.tensorParallelSize === b.tensorParallelSize &&
    a.pipelineParallelSize === b.pipelineParallelSize;
}

/**
 * The content of a profile file with an entry added or replaced.
 * @param path of the file, which need not exist
 * @throws {UsageError} the file is not a profile
 */
export function withEntry(path: string, entry: ModelProfile): string {
  const others = exists(path) ? readOthers(path, entry) : [];
  return `${JSON.stringify(toProfileJson([...others, entry]), null, 2)}\n`;
}

function readOthers(path: string, entry: ModelProfile): ModelProfile[] {
  refusePickle(path);
  return readProfileFile(path).filter((other) => !isSameEntry(other, entry));
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).size > 0;
  } catch {
    return false;
  }
}
