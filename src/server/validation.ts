/** Checks request bodies against zod schemas, with messages that name the field. */
import * as z from "zod";
import { RequestError } from "../core/errors.ts";
import type { JsonObject } from "./json_body.ts";

// The message of each schema is what its field must be.
export const aNumber = z.number("a number");
export const anInteger = z.int("an integer");
export const trueOrFalse = z.boolean("true or false");

/**
 * Checks the values of the body's fields. Their names are checked before, by `refused_fields.ts` and
 * `unknown_fields.ts`.
 * @throws {RequestError} of the first wrong field
 */
export function validate<T>(schema: z.ZodType<T>, body: JsonObject): T {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const value = valueAt(body, issue.path);
  const param = issue.path.join(".");
  throw new RequestError(`${param} must be ${issue.message}, got ${show(value)}.`, param);
}

function valueAt(body: JsonObject, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown>)?.[key], body);
}

/** A JSON value as an error message shows it: short, even if the value is long. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (typeof value === "string") {
    const head = JSON.stringify(value.slice(0, 40));
    return value.length > 40 ? `${head}... (${value.length} characters)` : head;
  }
  if (!Array.isArray(value)) return showObject(value as Record<string, unknown>);
  const shown = value.length <= 3 && value.every((it) => typeof it !== "object" || it === null)
    ? `[${value.map(show).join(", ")}]`
    : `an array of ${value.length}`;
  return value.length === 0 ? "an empty array" : shown;
}

/** A small object of short values as JSON, for a field of which one entry is wrong. */
function showObject(value: Record<string, unknown>): string {
  const entries = Object.entries(value);
  const isShort = entries.length <= 3 && entries.every(([, it]) => typeof it !== "object");
  if (!isShort || entries.length === 0) return "an object";
  return `{${entries.map(([key, it]) => `${show(key)}: ${show(it)}`).join(", ")}}`;
}
