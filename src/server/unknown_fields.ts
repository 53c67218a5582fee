/** Fields of requests that no route knows: ignored, but not in silence. */
import type { z } from "zod";
import type { Log } from "../core/log.ts";
import { didYouMean } from "../core/suggest.ts";
import type { JsonObject } from "./json_body.ts";
import { refusedFields } from "./refused_fields.ts";

/** Most names that are told; clients can think of any number. */
const MAX_NAMES = 256;
const MAX_NAME_LENGTH = 100;

/** Fields without an effect that clients send as a matter of course. */
const customary = ["user", "metadata", "store"];

/** The fields that a route knows: those of its schema, and those that it reads itself. */
export function knownFields(schema: z.ZodObject, others: readonly string[]): ReadonlySet<string> {
  return new Set([...Object.keys(schema.shape), ...others, ...refusedFields, ...customary]);
}

/** Warns once of each unknown name. */
export class UnknownFields {
  readonly #told = new Set<string>();

  constructor(private readonly log: Log) {}

  note(body: JsonObject, known: ReadonlySet<string>): void {
    for (const field of Object.keys(body)) {
      if (known.has(field) || this.#told.size >= MAX_NAMES) continue;
      const name = field.slice(0, MAX_NAME_LENGTH);
      if (this.#told.has(name)) continue;
      this.#told.add(name);
      this.log.warn(`request with unknown field ${name}, ignored${didYouMean(name, known)}`);
    }
  }
}
