/** Fields of requests that no route knows: misspelt ones, which would be missing, above all. */
import type { z } from "zod";
import { RequestError } from "../core/errors.ts";
import { didYouMean } from "../core/suggest.ts";
import type { JsonObject } from "./json_body.ts";
import { refusedFields } from "./refused_fields.ts";

const MAX_SHOWN_LENGTH = 100;

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

/** The fields that a route knows: those of its schema, and those that it reads itself. */
export function knownFields(schema: z.ZodObject, others: readonly string[]): ReadonlySet<string> {
  return new Set([
    ...Object.keys(schema.shape),
    ...others,
    ...refusedFields,
    ...fieldsWithoutEffect,
  ]);
}

/**
 * @param parent what stands before the names of fields of a nested object, such as `messages[0].`
 * @throws {RequestError} of the first that is unknown, as vLLM 0.4.2; null is as good as absent
 */
export function refuseUnknownFields(
  fields: JsonObject,
  known: ReadonlySet<string>,
  parent = "",
): void {
  for (const [field, value] of Object.entries(fields)) {
    if (known.has(field) || value === null) continue;
    const name = field.slice(0, MAX_SHOWN_LENGTH);
    const advice = didYouMean(name, known) || "; leave it out.";
    throw new RequestError(
      `${parent}${name} is no field of this request${advice}`,
      parent + name,
    );
  }
}
