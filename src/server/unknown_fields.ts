/** Fields of requests that no route knows. */
import type { z } from "zod";
import { RequestError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { ServerOptions } from "../core/options.ts";
import { didYouMean } from "../core/suggest.ts";
import type { JsonObject } from "./json_body.ts";
import { refusedFields } from "./refused_fields.ts";

const MAX_SHOWN_LENGTH = 100;

/** Names that are remembered, so that each is logged once. */
const MAX_LOGGED_NAMES = 256;

/** Fields of OpenAI's and vLLM's APIs without which an answer is the same, or that are hints. */
const fieldsWithoutEffect = [
  "guided_decoding_backend",
  "guided_whitespace_pattern",
  "metadata",
  "parallel_tool_calls",
  "prediction",
  "prompt_cache_key",
  "prompt_cache_retention",
  "reasoning_effort",
  "safety_identifier",
  "service_tier",
  "store",
  "user",
  "verbosity",
];

/** The fields that a route knows: the fields of its schema, and `others`, which it reads without a schema. */
export function knownFields(schema: z.ZodObject, others: readonly string[]): ReadonlySet<string> {
  return new Set([
    ...Object.keys(schema.shape),
    ...others,
    ...refusedFields,
    ...fieldsWithoutEffect,
  ]);
}

/**
 * Checks the fields of an object.
 * @param parent what stands before the names of a nested object's fields, such as `messages[0].`
 * @throws {RequestError} the object has a field that is refused
 */
export type FieldCheck = (
  fields: JsonObject,
  known: ReadonlySet<string>,
  parent?: string,
) => void;

/** What `--unknown-fields` asks for. */
export function unknownFieldCheck(mode: ServerOptions["unknownFields"], log: Log): FieldCheck {
  if (mode === "refuse") return refuseUnknownFields;
  if (mode === "ignore") return () => {};
  const logged = new Set<string>();
  return (fields, known, parent = "") => {
    for (const name of unknownNames(fields, known)) {
      // The same field of another message is the same name.
      const place = parent.replace(/\[\d+\]/g, "[]") + name;
      if (logged.has(place) || logged.size >= MAX_LOGGED_NAMES) continue;
      logged.add(place);
      log.warn("ignoring a field of requests that this server does not know", {
        field: place,
        hint: didYouMean(name, known).replace(/^; /, "") || undefined,
      });
    }
  };
}

/** Refuses the first unknown field, as vLLM 0.4.2 does. */
export const refuseUnknownFields: FieldCheck = (fields, known, parent = "") => {
  for (const name of unknownNames(fields, known)) {
    const advice = didYouMean(name, known) || "; leave it out.";
    throw new RequestError(
      `${parent}${name} is no field of this request${advice}`,
      parent + name,
    );
  }
};

/** A field that is null counts as absent. */
function* unknownNames(fields: JsonObject, known: ReadonlySet<string>): Generator<string> {
  for (const [field, value] of Object.entries(fields)) {
    if (!known.has(field) && value !== null) yield field.slice(0, MAX_SHOWN_LENGTH);
  }
}
