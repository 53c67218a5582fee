/** Fields that many messages have, with their bounds. */
import * as z from "zod";
import { errorKinds } from "../../errors.ts";

/** Longest name of a request, an instance, an API server or a migration. */
export const MAX_ID_CHARS = 1_024;
/** Longest text that is meant for people; the bus cuts error messages to this length. */
const MAX_TEXT_CHARS = 64 << 10;
/** Most entries of a list of ids, instances or blocks. */
export const MAX_LIST_LENGTH = 1 << 20;

export const id = z.string().min(1).max(MAX_ID_CHARS);
export const text = z.string().max(MAX_TEXT_CHARS);
/** A whole number of something. */
export const count = z.int().min(0);
/** Finite; may be negative, as ages are when clocks are set back. */
export const number = z.number();
/** Finite, 0 or more. */
export const amount = z.number().min(0);

/** What an instance, a manager or an API server serves. */
export const servedSettings = z.object({ model: text, dtype: id, maxModelLen: count });

/** Long lists of one type: a loop here costs a tenth of a schema for each entry. */
export const ids = z.custom<string[]>(
  (data) => isList(data, (entry) => typeof entry === "string" && entry.length <= MAX_ID_CHARS),
  "expected a list of ids",
);
export const counts = z.custom<number[]>(
  (data) => isList(data, isCount),
  "expected a list of whole numbers, 0 or more",
);

export function isList<T>(
  data: unknown,
  isEntry: (entry: unknown) => entry is T,
  maxLength?: number,
): data is T[];
export function isList(
  data: unknown,
  isEntry: (entry: unknown) => boolean,
  maxLength?: number,
): boolean;
export function isList(
  data: unknown,
  isEntry: (entry: unknown) => boolean,
  maxLength = MAX_LIST_LENGTH,
): boolean {
  if (!Array.isArray(data) || data.length > maxLength) return false;
  for (let i = 0; i < data.length; i++) {
    if (!isEntry(data[i])) return false;
  }
  return true;
}

export function isId(data: unknown): data is string {
  return typeof data === "string" && data.length <= MAX_ID_CHARS;
}

export function isCount(data: unknown): data is number {
  return Number.isSafeInteger(data) && (data as number) >= 0;
}

/** What only the same kind of migration backend reads. */
export const endpoint = z.record(z.string().max(MAX_ID_CHARS), z.unknown());
export const instanceType = z.enum(["both", "prefill", "decode"]);
export const priority = z.enum(["high", "normal"]);
export const errorRecord = z.object({
  kind: z.enum(errorKinds),
  message: text,
  param: z.string().max(MAX_ID_CHARS).nullable().optional(),
  retryAfterSeconds: amount.optional(),
});
