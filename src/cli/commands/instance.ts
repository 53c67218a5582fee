import { UsageError } from "../../core/errors.ts";
import type { InstanceOptions } from "../arguments/tables.ts";

/**
 * Runs one instance until its manager stops it.
 * @returns the exit code
 */
export function runInstance(_options: InstanceOptions): Promise<number> {
  return Promise.reject(new UsageError("running an instance is not available yet"));
}
