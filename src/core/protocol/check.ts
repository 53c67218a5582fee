/**
 * How a message that came from another process is checked. A check returns the data with its type, or
 * throws a {@linkcode MessageError} that names the field which does not fit.
 */
import type { z } from "zod";
import { MessageError } from "../errors.ts";

/** @throws {MessageError} the data does not fit */
export type Check<T> = (data: unknown) => T;

/** A check by a zod schema. Fields that the schema does not know are dropped. */
export function checkWith<T>(schema: z.ZodType<T>): Check<T> {
  return (data) => {
    const result = schema.safeParse(data);
    if (result.success) return result.data;
    const { path, message } = result.error.issues[0];
    throw new MessageError(`${fieldName(path)}: ${message.replace("Invalid input: ", "")}`);
  };
}

/** For calls and replies that carry no data. Data in such a message is dropped. */
export function nothing(): null {
  return null;
}

/** `["waiting", 2, "blocks"]` is "field waiting[2].blocks". */
export function fieldName(path: readonly PropertyKey[]): string {
  if (path.length === 0) return "the data";
  const name = path.map((key, i) =>
    typeof key === "number" ? `[${key}]` : i === 0 ? String(key) : `.${String(key)}`
  );
  return `field ${name.join("")}`;
}
