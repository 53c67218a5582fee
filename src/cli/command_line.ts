/**
 * Reads a command line by a table of arguments. vLLM's and Llumnix's users write for Python's
 * argparse; what it takes and `parseArgs` does not (`-tp 2`, values that begin with a dash, several
 * values after one option, `--max_model_len`) is rewritten to `--name=value` first.
 */
import { parseArgs } from "@std/cli/parse-args";
import { UsageError } from "../core/errors.ts";
import type { Value } from "./arguments/argument.ts";
import type { ArgumentIndex, Entry } from "./arguments/index.ts";
import { parseValue, shown } from "./arguments/values.ts";
import { didYouMean } from "../core/suggest.ts";
import { UnknownOptionError } from "./unknown_option_error.ts";

/**
 * Values by argument name, of the arguments that are given. The last of a repeated option wins, unless its
 * argument `repeats`.
 * @throws {UnknownOptionError} an option that is not of the index
 * @throws {UsageError} missing or invalid value, a word that belongs to no option
 */
export function readCommandLine(
  argv: readonly string[],
  index: ArgumentIndex,
): Map<string, Value> {
  const names = index.entries.map((entry) => entry.name);
  const lists = index.entries.filter((entry) => entry.argument.kind === "list");
  const parsed: Record<string, unknown> = parseArgs(rewrite(argv, index), {
    string: names.map(parsedName),
    collect: lists.map((entry) => parsedName(entry.name)),
  });
  const values = new Map<string, Value>();
  for (const { name, argument } of index.entries) {
    const raw = parsed[parsedName(name)];
    if (raw === undefined || (Array.isArray(raw) && raw.length === 0)) continue;
    values.set(name, parseValue(argument, raw, (value) => `--${name} ${value}`));
  }
  return values;
}

/** The name of an option for `parseArgs`, which takes `--no-x=value` for the option `x`. */
function parsedName(name: string): string {
  return `option-${name}`;
}

/** The same command line with every option as `--name=value`, by its {@linkcode parsedName}. */
function rewrite(argv: readonly string[], index: ArgumentIndex): string[] {
  let options: string[] = [];
  for (let i = 0; i < argv.length;) {
    const word = argv[i++];
    if (!isOption(word, index) && !word.startsWith("--")) throw unexpectedWord(word);
    const equals = word.indexOf("=");
    const [written, inline] = equals < 0
      ? [word, undefined]
      : [word.slice(0, equals), word.slice(equals + 1)];
    const { name, argument } = findOption(written, index);
    const parsed = parsedName(name);

    const isSwitched = argument.kind === "flag" && inline === undefined &&
      (argv[i] === "true" || argv[i] === "false");
    if (isSwitched) throw flagWithWord(written, argv[i]);
    if (argument.kind === "list") {
      const values = inline === undefined ? [] : [inline];
      while (inline === undefined && i < argv.length && !isOption(argv[i], index)) {
        values.push(argv[i++]);
      }
      if (values.length === 0) throw missingValue(written);
      if (!argument.repeats) {
        options = options.filter((option) => !option.startsWith(`--${parsed}=`));
      }
      options.push(...values.map((value) => `--${parsed}=${value}`));
      continue;
    }
    let value = inline;
    const takesNext = argument.kind !== "flag" && i < argv.length && !isOption(argv[i], index);
    if (value === undefined && takesNext) value = argv[i++];
    if (value === undefined) {
      if (argument.kind !== "flag" && argument.kind !== "boolean") throw missingValue(written);
      value = "true";
    }
    options.push(`--${parsed}=${value}`);
  }
  return options;
}

/**
 * argparse's rule: a dash begins an option, unless it stands alone or before a number. A word with a space is a
 * value, such as a command line in quotes, unless it is an option with its value.
 */
function isOption(word: string, index: ArgumentIndex): boolean {
  if (!word.startsWith("-") || word === "-") return false;
  if (/^-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(word)) return false;
  return !word.includes(" ") || index.byOption.has(dashed(word.split("=")[0]));
}

/** Names may have underscores. */
function dashed(written: string): string {
  return written.startsWith("--") ? written.replaceAll("_", "-") : written;
}

function findOption(written: string, index: ArgumentIndex): Entry {
  const option = dashed(written);
  const entry = index.byOption.get(option);
  if (entry !== undefined) return entry;
  if (written === "--help" || written === "-h") throw new UsageError(`${written} takes no value`);
  if (written === "--") throw unexpectedWord(written);
  const hint = didYouMean(written, index.byOption.keys());
  throw new UnknownOptionError(option, `unknown option ${written}${hint}`);
}

function missingValue(written: string): UsageError {
  return new UsageError(
    `${written}: expected a value (write ${written}=VALUE if it begins with a dash)`,
  );
}

function flagWithWord(written: string, word: string): UsageError {
  return new UsageError(
    `unexpected argument: ${word} (write ${written}=${word}: a flag takes no word after it)`,
  );
}

function unexpectedWord(word: string): UsageError {
  return new UsageError(`unexpected argument: ${shown(word)} (options begin with --)`);
}
