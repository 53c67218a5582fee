import type { BackendContext } from "./backend_kind.ts";

/** Whether connections between instances leave the host, and the operator wants them protected. */
export function needsProtection({ security, options }: BackendContext): boolean {
  return security !== null && !options.migrationInsecure;
}
