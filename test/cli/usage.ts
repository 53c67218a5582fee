import type { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { valueForm } from "../../src/cli/help.ts";

/** The arguments as the usage blocks of the reference pages list them: one a line. */
export function usageLines(index: ArgumentIndex): string[] {
  return index.entries.map((entry) => `${" ".repeat(12)}[--${entry.name}${valueForm(entry)}]`);
}
