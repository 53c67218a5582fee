/** `/tokenize` and `/detokenize`, as vLLM has them. */
import { STATUS_CODE } from "@std/http/status";
import * as z from "zod";
import { RequestError } from "../core/errors.ts";
import { toArray } from "../core/token_ids.ts";
import type { Prompt } from "../frontend/service.ts";
import { parseMessages } from "./chat_messages.ts";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { type JsonObject, readGenerationBody } from "./json_body.ts";
import { servedName } from "./model_name.ts";
import { isTokenId } from "./sampling_fields.ts";
import { knownFields } from "./unknown_fields.ts";
import { show, trueOrFalse, validate } from "./validation.ts";

export const tokenizeSchema = z.object({
  add_special_tokens: trueOrFalse.nullish(),
  add_generation_prompt: trueOrFalse.nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown(), "an object").nullish(),
  return_token_strs: trueOrFalse.nullish(),
});
const known = knownFields(tokenizeSchema, ["model", "prompt", "messages"]);
const knownToDetokenize = new Set(["model", "tokens"]);

/** Answers the tokens of a prompt or of a chat. */
export async function tokenize(exchange: Exchange, context: ServerContext): Promise<void> {
  const { service, checkFields } = context;
  const body = await readGenerationBody(exchange, context);
  servedName(body.model, service.model);
  checkFields(body, known);
  const fields = validate(tokenizeSchema, body);
  const prompt = await service.tokenize(promptOf(body, fields, context));
  const tokenIds = toArray(prompt.tokenIds);
  exchange.sendJson(STATUS_CODE.OK, {
    count: tokenIds.length,
    max_model_len: service.model.maxModelLen,
    tokens: tokenIds,
    token_strs: fields.return_token_strs ? tokenIds.map((id) => service.tokenText(id)) : null,
  });
}

function promptOf(
  body: JsonObject,
  fields: z.infer<typeof tokenizeSchema>,
  { checkFields }: ServerContext,
): Prompt {
  const { prompt, messages } = body;
  if ((prompt ?? null) !== null && (messages ?? null) !== null) {
    throw new RequestError("prompt and messages are both there; send one of them.", "prompt");
  }
  if ((messages ?? null) !== null) {
    return {
      messages: parseMessages(messages, checkFields),
      addGenerationPrompt: fields.add_generation_prompt ?? true,
      ...(fields.chat_template_kwargs && { templateArguments: fields.chat_template_kwargs }),
    };
  }
  if (typeof prompt !== "string" || !prompt.isWellFormed()) {
    throw new RequestError(
      `prompt must be a string of Unicode text, got ${show(prompt)}.`,
      "prompt",
    );
  }
  return { text: prompt, addSpecialTokens: fields.add_special_tokens ?? true };
}

/** Answers the text of tokens. */
export async function detokenize(exchange: Exchange, context: ServerContext): Promise<void> {
  const { service, checkFields } = context;
  const body = await readGenerationBody(exchange, context);
  servedName(body.model, service.model);
  checkFields(body, knownToDetokenize);
  const { tokens } = body;
  if (!Array.isArray(tokens) || !tokens.every(isTokenId)) {
    throw new RequestError(
      `tokens must be an array of token ids (integers, 0 or more), got ${show(tokens)}.`,
      "tokens",
    );
  }
  exchange.sendJson(STATUS_CODE.OK, { prompt: service.detokenize(tokens) });
}
