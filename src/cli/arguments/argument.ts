/**
 * What an argument is, and the functions that the tables are written with. An argument's type is
 * inferred from its entry, so the compiler checks the tables against `src/core/options.ts`.
 */

/** A value in effect. Lists belong to arguments of kind `list` only. */
export type Value = string | number | boolean | null | readonly string[];

/** Section of the configuration file. */
export type Section = "SERVER" | "MANAGER" | "ENGINE";

/** How a value is written. `flag` stands alone; `boolean` wants true, false, 1 or 0. */
export type Kind =
  | "flag"
  | "boolean"
  | "text"
  | "json"
  | "integer"
  | "number"
  | "size"
  | "list";

/** What an argument does if it is set to another value than its default. */
export type Status =
  | { readonly kind: "works" }
  /** No effect in this program; a warning says so. */
  | { readonly kind: "accepted"; readonly reason: string }
  /** An error at start. */
  | { readonly kind: "refused"; readonly reason: string }
  /** An error at start until this program has the capability. */
  | { readonly kind: "later" };

export const later: Status = { kind: "later" };
export const accepted = (reason: string): Status => ({ kind: "accepted", reason });
export const refused = (reason: string): Status => ({ kind: "refused", reason });

/** One argument. Its name is its key in the table. */
export interface Argument<T extends Value = Value> {
  readonly kind: Kind;
  readonly default: T;
  readonly help: string;
  readonly status: Status;
  /** Other spellings, with their dashes. */
  readonly aliases: readonly string[];
  /** In the order of the reference; `extraChoices` follow them. */
  readonly choices: readonly (string | number)[] | null;
  /** Choices that Llumnix and vLLM do not have, each with its meaning. */
  readonly extraChoices: Readonly<Record<string, string>>;
  /** Choices for the project's own tests, which help and errors do not list. */
  readonly hiddenChoices: readonly string[];
  /** Choices that are an error at start, each with the reason. */
  readonly refusedChoices: Readonly<Record<string, string>>;
  /** Choices that are an error at start until this program has the capability. */
  readonly laterChoices: readonly (string | number)[];
  readonly range: Range;
  /** Name of the value in help; null for the upper-case name of the argument. */
  readonly metavar: string | null;
  /** The default in words, where the value itself does not tell. */
  readonly defaultText: string | null;
  /** Whether to hide its value in `--print-config`. */
  readonly isSecret: boolean;
  /** The environment variable that sets it if nothing else does; null for none. */
  readonly environment: string | null;
  /** `.inf` and `inf` mean the default, which is no limit. */
  readonly acceptsInfinity: boolean;
  /** A list that repeated options add to; otherwise the last one wins. */
  readonly repeats: boolean;
  /** Null: command line only. Undefined: the section of the group. */
  readonly section?: Section | null;
}

/** Bounds of a number. */
export interface Range {
  readonly min?: number;
  readonly max?: number;
  /** Exclusive lower bound. */
  readonly above?: number;
}

export type ArgumentTable = Readonly<Record<string, Argument>>;

/** `max-model-len` becomes `maxModelLen`. */
type CamelCase<S extends string> = S extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : S;

/** The record of effective values that a table describes. */
export type OptionsOf<Table extends ArgumentTable> = {
  readonly [Name in keyof Table & string as CamelCase<Name>]: Table[Name] extends Argument<infer T>
    ? T
    : never;
};

/** The name of an argument as a property. */
export function camelCase(name: string): string {
  return name.replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}

/** The name of an argument as a key of the configuration file. */
export function fileKey(name: string): string {
  return name.replaceAll("-", "_").toUpperCase();
}

/** What the entry of any argument may have. */
interface Common {
  readonly help: string;
  readonly status?: Status;
  readonly aliases?: readonly string[];
  readonly metavar?: string;
  readonly defaultText?: string;
  readonly isSecret?: boolean;
  readonly environment?: string;
  readonly acceptsInfinity?: boolean;
  readonly repeats?: boolean;
  readonly section?: Section | null;
}

function argument<T extends Value>(
  kind: Kind,
  defaultValue: T,
  entry: Common & Partial<Argument>,
): Argument<T> {
  return {
    status: { kind: "works" },
    aliases: [],
    choices: null,
    extraChoices: {},
    hiddenChoices: [],
    refusedChoices: {},
    laterChoices: [],
    range: {},
    metavar: null,
    defaultText: null,
    isSecret: false,
    environment: null,
    acceptsInfinity: false,
    repeats: false,
    ...entry,
    kind,
    default: defaultValue,
  };
}

/** Off unless given. `--name=false` turns off what a configuration file turns on. */
export function flag(entry: Common): Argument<boolean> {
  return argument("flag", false as boolean, entry);
}

/** An argument that is followed by true, false, 1 or 0; given alone it means true. */
export function boolean(entry: Common & { default: boolean }): Argument<boolean> {
  return argument("boolean", entry.default, entry);
}

type OrNull<D> = Extract<D, null>;

export function text<const D extends string | null>(
  entry: Common & { default: D },
): Argument<string | OrNull<D>> {
  return argument<string | OrNull<D>>("text", entry.default as string | OrNull<D>, entry);
}

/** Text that must be JSON. */
export function json(entry: Common & { default: null }): Argument<string | null> {
  return argument<string | null>("json", null, entry);
}

export function integer<const D extends number | null>(
  entry: Common & Range & { default: D },
): Argument<number | OrNull<D>> {
  const { min, max, above, ...rest } = entry;
  return argument<number | OrNull<D>>("integer", entry.default as number | OrNull<D>, {
    ...rest,
    range: { min, max, above },
  });
}

export function number<const D extends number | null>(
  entry: Common & Range & { default: D },
): Argument<number | OrNull<D>> {
  const { min, max, above, ...rest } = entry;
  return argument<number | OrNull<D>>("number", entry.default as number | OrNull<D>, {
    ...rest,
    range: { min, max, above },
  });
}

/** A number of bytes, written as such or with a unit: `4MiB`, `500kB`. */
export function size(entry: Common & Range & { default: number }): Argument<number> {
  const { min, max, above, ...rest } = entry;
  return argument<number>("size", entry.default, { ...rest, range: { min, max, above } });
}

/** One value or several. */
export function list(entry: Common & { default: null }): Argument<readonly string[] | null> {
  return argument<readonly string[] | null>("list", null, entry);
}

interface ChoiceEntry extends Common {
  readonly choices: readonly (string | number)[];
  readonly default: string | number | null;
  readonly refusedChoices?: Readonly<Record<string, string>>;
  readonly extraChoices?: Readonly<Record<string, string>>;
  readonly hiddenChoices?: readonly string[];
  readonly laterChoices?: readonly (string | number)[];
}

/** The values that a command can get. Values that are refused at start, for now or for good, are left out. */
type ChoiceOf<E extends ChoiceEntry> =
  | Exclude<
    E["choices"][number],
    | (E extends { refusedChoices: infer R } ? keyof R : never)
    | (E extends { laterChoices: readonly (infer L)[] } ? L : never)
  >
  | (E extends { extraChoices: infer X } ? keyof X & string : never)
  | (E extends { hiddenChoices: readonly (infer H extends string)[] } ? H : never)
  | OrNull<E["default"]>;

/** One of a few values. */
export function choice<const E extends ChoiceEntry>(entry: E): Argument<ChoiceOf<E>> {
  const kind = entry.choices.every((value) => typeof value === "number") ? "integer" : "text";
  return argument(kind, entry.default as ChoiceOf<E>, {
    ...entry,
    choices: [...entry.choices, ...Object.keys(entry.extraChoices ?? {})],
  });
}
