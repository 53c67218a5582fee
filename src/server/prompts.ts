/** Prompts of completion requests. */
import { RequestError } from "../core/errors.ts";
import type { Prompt } from "../frontend/service.ts";
import { isTokenId } from "./sampling_fields.ts";
import { show } from "./validation.ts";

/**
 * The prompts of a request: a string, an array of token ids, or an array of either.
 * @param maxPrompts more are refused before any of them is read
 * @throws {RequestError}
 */
export function parsePrompts(
  value: unknown,
  addSpecialTokens: boolean | undefined,
  maxPrompts: number,
): Prompt[] {
  const isBatch = Array.isArray(value) &&
    (typeof value[0] === "string" || Array.isArray(value[0]));
  if (!isBatch) return [parsePrompt(value, "prompt", addSpecialTokens)];
  if (value.length > maxPrompts) {
    throw new RequestError(
      `The batch has ${value.length} prompts; at most ${maxPrompts} requests can be in the service ` +
        "(--max-queued-requests). Send smaller batches.",
      "prompt",
    );
  }
  return value.map((one, index) => parsePrompt(one, `prompt[${index}]`, addSpecialTokens));
}

function parsePrompt(value: unknown, name: string, addSpecialTokens: boolean | undefined): Prompt {
  const wrong = (message: string) => new RequestError(`${name} ${message}.`, name);
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw wrong("has half of a surrogate pair, which is no character");
    return addSpecialTokens === undefined ? { text: value } : { text: value, addSpecialTokens };
  }
  if (!Array.isArray(value)) {
    throw wrong(`must be a string or an array of token ids, got ${show(value)}`);
  }
  const bad = value.findIndex((id) => !isTokenId(id));
  if (bad >= 0) {
    throw wrong(
      `must hold token ids (integers, 0 or more), got ${show(value[bad])} at index ${bad}`,
    );
  }
  return { tokenIds: value };
}
