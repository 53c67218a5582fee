/**
 * Stand-in for `parseArgs` of `@std/cli` 1.0.28, for machines that cannot reach JSR. Same signature
 * and results for what this project uses: `string`, `boolean`, `collect`, `default`, `alias`,
 * `stopEarly`, `--` and `unknown`. What the real function also does (dotted names, groups of short
 * options, negatable options) throws here instead of giving another result.
 */

type Aliases = Readonly<Record<string, string | readonly string[]>>;

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions<
  TBooleans extends string = string,
  TStrings extends string = string,
  TCollectable extends string = string,
  TDefault extends Record<string, unknown> = Record<string, unknown>,
> {
  /** Puts what follows `--` into the result's `--` instead of `_`. */
  "--"?: boolean;
  /** Other names of options. */
  alias?: Aliases;
  /** Options without a value; false when absent. */
  boolean?: TBooleans | ReadonlyArray<TBooleans>;
  /** Options that gather every value they are given. */
  collect?: TCollectable | ReadonlyArray<TCollectable>;
  /** Values of absent options. */
  default?: TDefault;
  /** Puts everything from the first word that is not an option into `_`. */
  stopEarly?: boolean;
  /** Options whose values stay text; others become numbers when they look like one. */
  string?: TStrings | ReadonlyArray<TStrings>;
  /** Called for each option that is declared nowhere, and each word; `false` leaves it out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

type Values<
  TBooleans extends string,
  TStrings extends string,
  TCollectable extends string,
  TDefault,
> =
  & Record<string, unknown>
  & { [K in TBooleans]: K extends TCollectable ? boolean[] : boolean }
  & { [K in Exclude<TStrings, TCollectable | keyof TDefault>]?: string }
  & {
    [K in Exclude<TStrings & keyof TDefault, TCollectable>]:
      | string
      | TDefault[K];
  }
  & { [K in Extract<TStrings, TCollectable>]: string[] }
  & { [K in Exclude<TCollectable, TBooleans | TStrings>]: unknown[] };

/** What {@linkcode parseArgs} returns. */
export type Args<TValues = Record<string, unknown>> = TValues & {
  /** Words that belong to no option. */
  _: Array<string | number>;
  "--"?: string[];
};

/**
 * Parses a command line: `--name value`, `--name=value`, `--flag`, `-n value`. The last value of a
 * repeated option wins unless it is collected.
 */
export function parseArgs<
  TBooleans extends string = never,
  TStrings extends string = never,
  TCollectable extends string = never,
  TDefault extends Record<string, unknown> = Record<never, unknown>,
>(
  args: string[],
  options: ParseOptions<TBooleans, TStrings, TCollectable, TDefault> = {},
): Args<Values<TBooleans, TStrings, TCollectable, TDefault>> {
  const unknown = options.unknown ?? (() => true);
  const others = otherNames(options.alias ?? {});
  const booleans = withAliases(options.boolean, others);
  const strings = withAliases(options.string, others);
  const collected = withAliases(options.collect, others);
  const result: Args = { _: [] };

  /** Stores under every name of the option. */
  function store(key: string, value: string | boolean, arg: string): void {
    if (key.includes(".")) {
      throw new TypeError(`Dotted names need the real @std/cli: ${arg}`);
    }
    const declared = booleans.has(key) || strings.has(key) || others.has(key);
    if (!declared && unknown(arg, key, value) === false) return;
    const typed = typeof value === "string" && !strings.has(key) ? numberOrText(value) : value;
    for (const name of [key, ...others.get(key) ?? []]) {
      if (!collected.has(key)) result[name] = typed;
      else if (Array.isArray(result[name])) result[name].push(typed);
      else result[name] = [typed];
    }
  }

  /** Stores the option at `args[i]`; returns how many following words it took. */
  function option(
    key: string,
    next: string | undefined,
    isValue: boolean,
    arg: string,
  ): number {
    const isFlag = booleans.has(key) ||
      others.get(key)?.some((name) => booleans.has(name));
    if (next && isValue && !isFlag) {
      store(key, next, arg);
      return 1;
    }
    if (next === "true" || next === "false") {
      store(key, next === "true", arg);
      return 1;
    }
    store(key, strings.has(key) ? "" : true, arg);
    return 0;
  }

  const end = args.indexOf("--");
  const words = end < 0 ? args : args.slice(0, end);
  for (let i = 0; i < words.length; i++) {
    const arg = words[i];
    const next: string | undefined = words[i + 1];
    if (/^--./s.test(arg)) {
      const [key, value] = splitAtEquals(arg.slice(2));
      if (/^--no-.*=/s.test(arg)) {
        throw new TypeError(
          `Negated options with a value need the real @std/cli: ${arg}`,
        );
      }
      if (value === undefined) {
        i += option(key, next, !next?.startsWith("-"), arg);
      } else store(key, booleans.has(key) ? value !== "false" : value, arg);
    } else if (/^-./s.test(arg)) {
      if (arg.length > 2) {
        throw new TypeError(
          `Groups of short options need the real @std/cli: ${arg}`,
        );
      }
      i += option(arg[1], next, !/^--?[^-]/.test(next ?? ""), arg);
    } else {
      if (unknown(arg) !== false) {
        result._.push(strings.has("_") ? arg : numberOrText(arg));
      }
      if (options.stopEarly) {
        result._.push(...words.slice(i + 1));
        break;
      }
    }
  }

  for (const [key, value] of Object.entries(options.default ?? {})) {
    if (Object.hasOwn(result, key)) continue;
    for (const name of [key, ...others.get(key) ?? []]) result[name] = value;
  }
  for (const key of booleans) {
    if (!Object.hasOwn(result, key)) {
      result[key] = collected.has(key) ? [] : false;
    }
  }
  for (const key of strings) {
    if (!Object.hasOwn(result, key) && collected.has(key)) result[key] = [];
  }
  const rest = end < 0 ? [] : args.slice(end + 1);
  if (options["--"]) result["--"] = rest;
  else result._.push(...rest);
  return result as Args<Values<TBooleans, TStrings, TCollectable, TDefault>>;
}

/** For each name of an option that has several, the other ones. */
function otherNames(aliases: Aliases): Map<string, string[]> {
  const others = new Map<string, string[]>();
  for (const [key, value] of Object.entries(aliases)) {
    const names = [key, ...[value].flat()];
    for (const name of names) {
      others.set(
        name,
        names.filter((other) => other !== name),
      );
    }
  }
  return others;
}

function withAliases(
  names: string | readonly string[] | undefined,
  others: Map<string, string[]>,
): Set<string> {
  const all = [names ?? []].flat().filter(Boolean);
  return new Set(all.flatMap((name) => [name, ...others.get(name) ?? []]));
}

/** Splits at the first `=` that has a name before it; the value may be empty. */
function splitAtEquals(text: string): [string, string | undefined] {
  const at = text.indexOf("=", 1);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function numberOrText(text: string): number | string {
  return /\S/.test(text) && Number.isFinite(Number(text)) ? Number(text) : text;
}
