import type { ServedSettings } from "./protocol/membership.ts";

const options = { model: "--model", dtype: "--dtype", maxModelLen: "--max-model-len" } as const;

/**
 * The first setting in which two ends differ, for an error's message that names both; null: none.
 * @param here who has `a`, as the message has it
 */
export function settingsDifference(
  a: ServedSettings,
  b: ServedSettings,
  here: string,
  there: string,
): string | null {
  for (const key of Object.keys(options) as (keyof ServedSettings)[]) {
    if (a[key] !== b[key]) return `${here} has ${options[key]} ${a[key]}, and ${there} ${b[key]}`;
  }
  return null;
}
