/** The inverse of the command line, for starting an instance with the options in effect here. */
import type { EngineOptions } from "../core/options.ts";
import { camelCase } from "./arguments/argument.ts";
import { engineTable } from "./arguments/tables.ts";

/**
 * The engine options that differ from their defaults, as words of a command line. Options without an
 * effect are left out, so that an instance does not repeat the warning.
 */
export function toArgv(options: EngineOptions): string[] {
  const values = new Map<string, unknown>(Object.entries(options));
  const argv: string[] = [];
  for (const [name, argument] of Object.entries(engineTable)) {
    const value = values.get(camelCase(name));
    if (value === undefined || value === null || value === argument.default) continue;
    if (argument.status.kind === "accepted") continue;
    if (argument.kind === "list") argv.push(`--${name}`, ...value as readonly string[]);
    else argv.push(`--${name}=${value}`);
  }
  return argv;
}
