/** How urgent a request is: its field `priority`, or the header that a gateway sets. */
import * as z from "zod";
import { RequestError } from "../core/errors.ts";
import type { Priority } from "../core/protocol/generate.ts";
import type { Exchange } from "./exchange.ts";
import { show } from "./validation.ts";

const HEADER = "x-request-priority";
const priorities: readonly Priority[] = ["high", "normal"];
const expected = '"high" or "normal"';

/** The field of all generating routes. */
export const priorityField = z.union([z.enum(priorities), z.literal(0)], expected)
  // vLLM's priorities are numbers, of which 0 is the usual one.
  .transform((value): Priority => value === 0 ? "normal" : value).nullish();

/**
 * The priority that a request asks for; normal if it asks for none. If both the field and the header are
 * there, they must agree.
 * @param field checked by {@linkcode priorityField}
 * @throws {RequestError} a header that is no priority, or that contradicts the field
 */
export function requestedPriority(exchange: Exchange, field?: Priority | null): Priority {
  const headers = [...new Set(exchange.headers(HEADER))];
  const wrong = headers.find((value) => !priorities.includes(value as Priority));
  if (wrong !== undefined) {
    throw new RequestError(`The header ${HEADER} must be ${expected}, got ${show(wrong)}.`, HEADER);
  }
  const asked = new Set([...field ? [field] : [], ...headers as Priority[]]);
  if (asked.size > 1) {
    throw new RequestError(
      `Field priority and header ${HEADER} contradict each other (${
        [...asked].join(", ")
      }); send ` +
        "one of them, or the same in both.",
      "priority",
    );
  }
  return [...asked][0] ?? "normal";
}
