/**
 * Fields of OpenAI's and vLLM's APIs that would change the answer and that this server cannot honour. They
 * are refused, because ignoring them would give the answer to another request.
 */
import { RequestError } from "../core/errors.ts";
import type { JsonObject } from "./json_body.ts";
import { show } from "./validation.ts";

interface Refusal {
  /** Whether a value asks for nothing that is missing. */
  readonly accepts: (value: unknown, body: JsonObject) => boolean;
  readonly reason: string;
}

const isOne = (value: unknown) => value === 1;
const isFalse = (value: unknown) => value === false;
const isEmpty = (value: unknown) =>
  value === "" || typeof value === "object" && value !== null && Object.keys(value).length === 0;
const isNoneOrAuto = (value: unknown) => value === "none" || value === "auto";
const never = () => false;

const noBestOf =
  "choosing the best of several sequences is not supported; use n to get all of them";
const noBeamSearch = "beam search is not supported; leave it out";
const noGuidedDecoding = "output cannot be constrained to a format or grammar; leave it out";
const noTools = 'tool calls are not supported; leave it out, or send "tool_choice": "none"';

const refusals: Readonly<Record<string, Refusal>> = {
  best_of: { accepts: (value, { n }) => value === (n ?? 1), reason: noBestOf },
  use_beam_search: { accepts: isFalse, reason: noBeamSearch },
  length_penalty: { accepts: isOne, reason: noBeamSearch },
  early_stopping: { accepts: isFalse, reason: noBeamSearch },
  suffix: {
    accepts: isEmpty,
    reason: "inserting text before a suffix is not supported; leave it out",
  },
  response_format: {
    accepts: (value) => (value as { type?: unknown } | null)?.type === "text",
    reason: noGuidedDecoding,
  },
  guided_json: { accepts: never, reason: noGuidedDecoding },
  guided_regex: { accepts: never, reason: noGuidedDecoding },
  guided_choice: { accepts: never, reason: noGuidedDecoding },
  guided_grammar: { accepts: never, reason: noGuidedDecoding },
  truncate_prompt_tokens: {
    accepts: never,
    reason: "the server does not truncate prompts; send only the part you want",
  },
  continue_final_message: {
    accepts: isFalse,
    reason: "continuing the last message is not supported; leave it out",
  },
  return_tokens_as_token_ids: {
    accepts: isFalse,
    reason:
      'tokens are shown as text; send "detokenize": false to /v1/completions to get their ids',
  },
  tools: {
    accepts: (value, body) => isEmpty(value) || body.tool_choice === "none",
    reason: noTools,
  },
  tool_choice: { accepts: isNoneOrAuto, reason: noTools },
  functions: {
    accepts: (value, body) => isEmpty(value) || body.function_call === "none",
    reason: noTools,
  },
  function_call: { accepts: isNoneOrAuto, reason: noTools },
  chat_template: {
    accepts: never,
    reason: "a request cannot set the template; start the server with --chat-template",
  },
  web_search_options: { accepts: never, reason: "web search is not supported; leave it out" },
  modalities: {
    accepts: (value) => Array.isArray(value) && value.every((it) => it === "text"),
    reason: "output is text only; leave it out",
  },
  audio: { accepts: never, reason: "output is text only; leave it out" },
};

export const refusedFields: readonly string[] = Object.keys(refusals);

/** @throws {RequestError} of the first field that cannot be honoured; null is as good as absent */
export function refuseUnsupportedFields(body: JsonObject): void {
  for (const [field, { accepts, reason }] of Object.entries(refusals)) {
    const value = body[field];
    if (value === undefined || value === null || accepts(value, body)) continue;
    throw new RequestError(`${field} is ${show(value)}, but ${reason}.`, field);
  }
}
