/** How a record becomes a line. */
import type { LogRecord } from "@std/log";
import { LlumnixError } from "./errors.ts";
import { type JournalLevel, journalPrefix } from "./journal.ts";
import type { LogFields } from "./log.ts";

export type LogFormat = "text" | "json";

type Format = (record: LogRecord, role: string | undefined) => string;

/** For stderr and files. */
export const formats: Readonly<Record<LogFormat, Format>> = {
  text: (record, role) =>
    `${record.datetime.toISOString()} ${record.levelName} ${formatContent(record, role)}`,
  json: formatJson,
};

/** For the journal of systemd, which knows the time: the priority in front takes the level's place. */
export function forJournal(record: LogRecord, role: string | undefined, format: LogFormat): string {
  const level = record.levelName.toLowerCase() as JournalLevel;
  const content = format === "json" ? formatJson(record, role) : formatContent(record, role);
  return journalPrefix(level) + content;
}

/**
 * One object: `time`, `level`, `role`, `component`, `message`, then the record's fields. A field with one
 * of these names gets `field_` in front.
 */
function formatJson(record: LogRecord, role: string | undefined): string {
  const [component, fields] = partsOf(record);
  const own: Record<string, unknown> = {
    time: record.datetime.toISOString(),
    level: record.levelName,
    role,
    component,
    message: record.msg,
  };
  for (const [key, value] of Object.entries(fields)) {
    own[key in own ? `field_${key}` : key] = value instanceof Error ? describeError(value) : value;
  }
  try {
    return oneLine(stringify(own));
  } catch {
    // A field refers to itself.
    return oneLine(stringify(Object.fromEntries(
      Object.entries(own).map(([key, value]) => [
        key,
        typeof value === "object" ? Deno.inspect(value) : value,
      ]),
    )));
  }
}

/** Everything but time and level. */
function formatContent(record: LogRecord, role: string | undefined): string {
  const [component, fields] = partsOf(record);
  const source = role ? `${role}/${component}` : component;
  let line = `${source}: ${oneLine(record.msg)}`;
  for (const [key, value] of Object.entries(fields)) {
    if (value !== undefined) line += ` ${key}=${formatValue(value)}`;
  }
  return line;
}

function partsOf(record: LogRecord): [component: string, fields: LogFields] {
  const [component, given] = record.args as [string, LogFields | (() => LogFields) | undefined];
  return [component, (typeof given === "function" ? given() : given) ?? {}];
}

function formatValue(value: unknown): string {
  if (value instanceof Error) value = describeError(value);
  if (typeof value === "object" && value !== null) return oneLine(toJson(value));
  const text = String(value);
  return /^[^\s"=]+$/u.test(text) && !unsafe.test(text) ? text : oneLine(JSON.stringify(text));
}

/** Errors of this program and of the system show their message; any other is a bug and shows its stack. */
function describeError(error: Error): string {
  const isExpected = error instanceof LlumnixError || error.name in Deno.errors;
  return isExpected ? error.message : error.stack ?? error.message;
}

function toJson(value: object): string {
  try {
    return stringify(value);
  } catch {
    return Deno.inspect(value);
  }
}

function stringify(value: object): string {
  return JSON.stringify(value, (_, item) => typeof item === "bigint" ? String(item) : item);
}

/**
 * Characters that could forge a record or change how a terminal shows it: controls (C0 and C1), bidirectional
 * controls, and the line separators U+2028 and U+2029.
 */
const unsafe = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u;
const everyUnsafe = new RegExp(unsafe, "gu");

/** The text with all such characters escaped. */
function oneLine(text: string): string {
  return text.replace(
    everyUnsafe,
    (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"),
  );
}
