/** Prompts of completion requests. */
import { RequestError } from "../core/errors.ts";
import type { Prompt, ServedModel } from "../frontend/service.ts";
import { isTokenId } from "./sampling_fields.ts";
import { show } from "./validation.ts";

/**
 * The prompts of a request: a string, an array of token ids, or an array of either.
 * @throws {RequestError}
 */
export function parsePrompts(
  value: unknown,
  model: ServedModel,
  addSpecialTokens: boolean | undefined,
): Prompt[] {
  if (value === undefined || value === null) {
    throw new RequestError(
      '"prompt" is missing; it is a string or an array of token ids',
      "prompt",
    );
  }
  const isBatch = Array.isArray(value) &&
    (typeof value[0] === "string" || Array.isArray(value[0]));
  if (!isBatch) return [parsePrompt(value, "prompt", model, addSpecialTokens)];
  return value.map((one, index) => parsePrompt(one, `prompt[${index}]`, model, addSpecialTokens));
}

function parsePrompt(
  value: unknown,
  name: string,
  model: ServedModel,
  addSpecialTokens: boolean | undefined,
): Prompt {
  const wrong = (message: string) => new RequestError(`"${name}" ${message}`, name);
  if (typeof value === "string") {
    if (!model.hasTokenizer) {
      throw wrong(
        "is a string, but the server has no tokenizer (--skip-tokenizer-init); send token ids",
      );
    }
    if (!value.isWellFormed()) {
      throw wrong(
        "has half of a surrogate pair, which is no character; send Unicode text or token ids",
      );
    }
    return addSpecialTokens === undefined ? { text: value } : { text: value, addSpecialTokens };
  }
  if (!Array.isArray(value)) {
    throw wrong(`must be a string or an array of token ids, not ${show(value)}`);
  }
  if (value.length === 0) throw wrong("is empty; at least one token is needed");
  const bad = value.findIndex((id) => !isTokenId(id) || id >= model.vocabSize);
  if (bad >= 0) {
    throw wrong(
      `must hold token ids from 0 to ${model.vocabSize - 1}; at index ${bad} is ${
        show(value[bad])
      }`,
    );
  }
  return { tokenIds: value };
}
