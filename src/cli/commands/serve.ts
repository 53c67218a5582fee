import { UsageError } from "../../core/errors.ts";
import type { ServeOptions } from "../arguments/tables.ts";
import type { Settings } from "../settings.ts";

/**
 * Serves until it is told to stop.
 * @param sources where each option came from
 * @returns the exit code
 */
export function runServe(_options: ServeOptions, _sources: Settings): Promise<number> {
  return Promise.reject(new UsageError("serving is not available yet"));
}
