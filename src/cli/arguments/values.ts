/** From what a user wrote to a checked value, and back to text. */
import { UsageError } from "../../core/errors.ts";
import { didYouMean } from "../../core/suggest.ts";
import type { Argument, Range, Value } from "./argument.ts";

/**
 * Checks one value against its argument.
 * @param raw text of the command line, or a scalar or list of the configuration file
 * @param where describes the place of a value, for errors: `--port 70000`
 * @throws {UsageError} wrong type, not a choice, or out of range
 */
export function parseValue(
  argument: Argument,
  raw: unknown,
  where: (shown: string) => string,
): Value {
  const fail = (expected: string): never => {
    throw new UsageError(`${where(shown(raw))}: expected ${expected}`);
  };
  if (raw === null && argument.default === null) return null;
  if (argument.acceptsInfinity && /^\+?(\.?inf|Infinity)$/i.test(String(raw))) {
    return argument.default;
  }
  const value = argument.choices === null
    ? convert(argument, raw, fail)
    : toChoice(argument.choices, argument.hiddenChoices, raw, fail);
  if (typeof value === "number" && !inRange(value, argument.range)) fail(expectedNumber(argument));
  return value;
}

type Fail = (expected: string) => never;

function convert(argument: Argument, raw: unknown, fail: Fail): Value {
  switch (argument.kind) {
    case "flag":
    case "boolean":
      return toBoolean(raw) ?? fail("true, false, 1 or 0");
    case "integer": {
      const value = toNumber(raw, /^[+-]?\d+$/);
      if (value !== null && Number.isSafeInteger(value)) return value;
      return fail(expectedNumber(argument));
    }
    case "number":
      return toNumber(raw, /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i) ??
        fail(expectedNumber(argument));
    case "size":
      return toBytes(raw) ?? fail("a number of bytes, such as 1048576 or 4MiB");
    case "list":
      return toNames([raw].flat(), fail);
    case "json":
      return toJson(raw) ?? fail("JSON; quote it for the shell, as in '[\"*\"]'");
    case "text":
      return typeof raw === "string" ? raw : fail("text: put it in quotes");
  }
}

function toChoice(
  choices: readonly (string | number)[],
  hiddenChoices: readonly string[],
  raw: unknown,
  fail: Fail,
): Value {
  const text = String(raw);
  const names = choices.map(shown);
  return [...choices, ...hiddenChoices].find((choice) => String(choice) === text) ??
    fail(`one of ${names.join(", ")}${didYouMean(text, names)}`);
}

/** Reads YAML 1.1's words too (yes, on): Llumnix reads its files as YAML 1.1. */
function toBoolean(raw: unknown): boolean | null {
  const word = String(raw).toLowerCase();
  if (["true", "1", "yes", "on"].includes(word)) return true;
  if (["false", "0", "no", "off"].includes(word)) return false;
  return null;
}

function toNumber(raw: unknown, form: RegExp): number | null {
  if (typeof raw !== "number" && typeof raw !== "string") return null;
  const value = form.test(String(raw)) ? Number(raw) : NaN;
  return Number.isFinite(value) ? value : null;
}

const unitBytes: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
};

function toBytes(raw: unknown): number | null {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(String(raw));
  if (match === null) return null;
  const unit = match[2].toLowerCase();
  if (!Object.hasOwn(unitBytes, unit)) return null;
  const bytes = Number(match[1]) * unitBytes[unit];
  return Number.isSafeInteger(bytes) ? bytes : null;
}

function toNames(raw: unknown[], fail: Fail): string[] {
  // A negative number passes: the argument's own check says what is wrong with it. So does a text with
  // spaces, such as a command line in quotes.
  const isName = (item: unknown) =>
    typeof item === "string" && item !== "" && !/^-(?!\d)\S*$/.test(item);
  return raw.length > 0 && raw.every(isName)
    ? raw as string[]
    : fail("one value or several, none of them empty");
}

function toJson(raw: unknown): string | null {
  if (typeof raw !== "string") return JSON.stringify(raw) ?? null;
  try {
    JSON.parse(raw);
    return raw;
  } catch {
    return null;
  }
}

function inRange(value: number, range: Range): boolean {
  return value >= (range.min ?? -Infinity) && value <= (range.max ?? Infinity) &&
    value > (range.above ?? -Infinity);
}

/** "an integer from 0 to 65535", "a number of at least 0". */
function expectedNumber({ kind, range: { min, max, above } }: Argument): string {
  const noun = kind === "integer" ? "an integer" : kind === "size" ? "a size" : "a number";
  if (min !== undefined && max !== undefined) return `${noun} from ${min} to ${max}`;
  const bounds = [
    ...(min !== undefined ? [`at least ${min}`] : []),
    ...(above !== undefined ? [`greater than ${above}`] : []),
    ...(max !== undefined ? [`at most ${max}`] : []),
  ];
  if (bounds.length === 0) return noun;
  return `${noun} ${above === undefined ? "of " : ""}${bounds.join(" and ")}`;
}

/** A value as a user would write it; text that cannot be seen as one word is quoted. */
export function shown(value: unknown): string {
  if (Array.isArray(value)) return value.map(shown).join(" ");
  if (typeof value === "string") return /^[^\s"']+$/.test(value) ? value : JSON.stringify(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A default as help and documentation show it. Null for flags, which are off, and for unset values. */
export function shownDefault(argument: Argument): string | null {
  if (argument.kind === "flag") return null;
  return argument.defaultText ?? (argument.default === null ? null : shown(argument.default));
}
