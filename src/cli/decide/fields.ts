/** Reading JSON records strictly: the tables that check them are the tables that help prints. */
import { UsageError } from "../../core/errors.ts";
import { didYouMean } from "../../core/suggest.ts";

/** One field of a record. */
export interface Field<T = unknown> {
  /** What a value looks like, for help and errors: "a number of at least 0". */
  readonly form: string;
  readonly help: string;
  /** Value when it is left out; undefined: it must be there. */
  readonly default?: T;
  /** Undefined: not of this form. Nested records report their own errors. */
  read(value: unknown, where: string): T | undefined;
}

export type Fields = Readonly<Record<string, Field>>;

/** The result of {@linkcode readRecord}. */
export type RecordOf<F extends Fields> = {
  readonly [Name in keyof F]: F[Name] extends Field<infer T> ? T : never;
};

/**
 * Checks a record against its fields and fills in defaults.
 * @param where place of the record, for errors; empty at the top
 * @throws {UsageError} not an object; a field that is unknown, missing or of another form
 */
export function readRecord<F extends Fields>(value: unknown, fields: F, where = ""): RecordOf<F> {
  const place = where === "" ? "" : `${where}: `;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UsageError(`${place}expected a JSON object, such as {"...": ...}`);
  }
  for (const name of Object.keys(value)) {
    if (Object.hasOwn(fields, name)) continue;
    const hint = didYouMean(name, Object.keys(fields)) ||
      " (llumnix decide --help lists the fields)";
    throw new UsageError(`${place}unknown field ${name}${hint}`);
  }
  const given = new Map(Object.entries(value));
  const entries = Object.entries(fields).map(([name, field]) => {
    const path = where === "" ? name : `${where}.${name}`;
    if (!given.has(name)) {
      if (field.default !== undefined) return [name, field.default];
      throw new UsageError(`${place}${name} is missing: expected ${field.form}`);
    }
    const read = field.read(given.get(name), path);
    if (read !== undefined) return [name, read];
    throw new UsageError(`${path}: ${shown(given.get(name))} is not ${field.form}`);
  });
  return Object.fromEntries(entries) as RecordOf<F>;
}

/** A value on one line. JSON numbers that are too large show as Infinity. */
function shown(value: unknown): string {
  return Deno.inspect(value, { compact: true, breakLength: Infinity });
}

/** A field and the form of its values. */
function field<T>(
  form: string,
  help: string,
  defaultValue: T | undefined,
  read: (value: unknown, where: string) => T | undefined,
): Field<T> {
  return { form, help, default: defaultValue, read };
}

export function text(help: string): Field<string> {
  return field("text that is not empty", help, undefined, (value) => {
    return typeof value === "string" && value !== "" ? value : undefined;
  });
}

/** Text or null, which is the default. */
export function textOrNull(help: string): Field<string | null> {
  return field<string | null>("text, or null", help, null, (value) => {
    return typeof value === "string" || value === null ? value : undefined;
  });
}

/** A whole number. */
export function count(help: string, entry: { default?: number; min?: number } = {}): Field<number> {
  const { min = 0 } = entry;
  return field(`a whole number of at least ${min}`, help, entry.default, (value) => {
    return Number.isSafeInteger(value) && value as number >= min ? value as number : undefined;
  });
}

/** A number that may have a fraction, such as blocks that a prompt fills. */
export function amount(help: string, entry: { default?: number } = {}): Field<number> {
  return field("a number of at least 0", help, entry.default, toAmount);
}

/** As {@linkcode amount}, or null, which is the default. */
export function amountOrNull(help: string): Field<number | null> {
  return field<number | null>("a number of at least 0", help, null, toAmount);
}

export function truth(help: string, entry: { default: boolean }): Field<boolean> {
  return field("true or false", help, entry.default, (value) => {
    return typeof value === "boolean" ? value : undefined;
  });
}

export function oneOf<const T extends string>(
  help: string,
  entry: { choices: readonly T[]; default: T },
): Field<T> {
  return field(`one of ${entry.choices.join(", ")}`, help, entry.default, (value) => {
    return entry.choices.find((choice) => choice === value);
  });
}

/** A field that no decision reads. It is accepted so that whole reports can be given. */
export function unread(help: string): Field<unknown> {
  return field<unknown>("anything", help, null, (value) => value ?? null);
}

/** Numbers as of {@linkcode amount}; default none. */
export function amounts(help: string): Field<readonly number[]> {
  return field<readonly number[]>("a list of numbers at least 0", help, [], (value) => {
    const isList = Array.isArray(value) && value.every((item) => toAmount(item) !== undefined);
    return isList ? value : undefined;
  });
}

/** A list of records. */
export function records<F extends Fields>(
  help: string,
  fields: F,
  entry: { default?: readonly RecordOf<F>[] } = {},
): Field<readonly RecordOf<F>[]> {
  return field("a list of records", help, entry.default, (value, where) => {
    if (!Array.isArray(value)) return undefined;
    return value.map((item, i) => readRecord(item, fields, `${where}[${i}]`));
  });
}

function toAmount(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined;
}
