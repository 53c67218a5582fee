/** Messages of chat requests: text only. */
import { RequestError } from "../core/errors.ts";
import type { ChatMessage } from "../frontend/service.ts";
import type { JsonObject } from "./json_body.ts";
import type { FieldCheck } from "./unknown_fields.ts";
import { show } from "./validation.ts";

/** Rendering as many takes a template about 20 ms, during which nothing else runs. */
const MAX_MESSAGES = 4096;

/** The fields that are read here, and fields of answers that clients send back, which templates do not get. */
const knownFields = new Set([
  "role",
  "content",
  "name",
  "annotations",
  "audio",
  "function_call",
  "reasoning",
  "reasoning_content",
  "refusal",
  "id",
  "tool_call_id",
  "tool_calls",
]);
const knownPartFields = new Set(["type", "text", "cache_control"]);

/** @throws {RequestError} naming the first wrong message */
export function parseMessages(value: unknown, checkFields: FieldCheck): ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new RequestError(
      `messages must be a non-empty array of messages, got ${show(value)}.`,
      "messages",
    );
  }
  if (value.length > MAX_MESSAGES) {
    throw new RequestError(
      `messages has ${value.length} messages; at most ${MAX_MESSAGES} can be rendered. Join or drop some.`,
      "messages",
    );
  }
  return value.map((message, index) => parseMessage(message, `messages[${index}]`, checkFields));
}

function parseMessage(value: unknown, name: string, checkFields: FieldCheck): ChatMessage {
  const wrong = (field: string, message: string) =>
    new RequestError(`${name}${field} ${message}.`, name + field);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong("", `must be an object with "role" and "content", got ${show(value)}`);
  }
  const message = value as JsonObject;
  checkFields(message, knownFields, `${name}.`);
  const { role, content, name: speaker, tool_calls: toolCalls } = message;
  if (typeof role !== "string" || role === "") {
    throw wrong(".role", `must be a string such as "user", got ${show(role)}`);
  }
  if (Array.isArray(toolCalls) && toolCalls.length > 0) {
    throw wrong(".tool_calls", "is not supported; leave tool calls out");
  }
  if (speaker !== undefined && speaker !== null && typeof speaker !== "string") {
    throw wrong(".name", `must be a string, got ${show(speaker)}`);
  }
  // Answers without text come back with null, or without content.
  const isAnswer = role === "assistant" || role === "tool" || role === "function";
  const text = isAnswer && (content ?? null) === null
    ? ""
    : parseContent(content, `${name}.content`, checkFields);
  const reasoning = message.reasoning_content ?? message.reasoning;
  return {
    role,
    content: text,
    ...(typeof speaker === "string" && { name: speaker }),
    ...(typeof reasoning === "string" && reasoning.isWellFormed() &&
      { reasoning_content: reasoning }),
  };
}

/** Parts are joined by line ends, as vLLM does. */
function parseContent(content: unknown, name: string, checkFields: FieldCheck): string {
  const wrong = (suffix: string, message: string) =>
    new RequestError(`${name}${suffix} ${message}.`, name + suffix);
  const text = Array.isArray(content) ? content.map(partText).join("\n") : content;
  if (typeof text !== "string") {
    throw wrong("", `must be a string or an array of text parts, got ${show(content)}`);
  }
  if (!text.isWellFormed()) {
    throw wrong("", "has half of a surrogate pair, which is no character; send Unicode text");
  }
  return text;

  function partText(part: unknown, index: number): string {
    const fields = typeof part === "object" ? (part ?? {}) as JsonObject : {};
    const { type, text } = fields;
    if (type === "text") checkFields(fields, knownPartFields, `${name}[${index}].`);
    if (type === "text" && typeof text === "string") return text;
    throw wrong(
      `[${index}]`,
      type === "text" || type === undefined
        ? `must be a part {"type": "text", "text": "..."}`
        : `is of type ${show(type)}; this model takes text parts only`,
    );
  }
}
