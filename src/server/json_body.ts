/** Request bodies as JSON objects, with errors that say where they are wrong. */
import { STATUS_CODE } from "@std/http/status";
import { RequestError } from "../core/errors.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

/** Longest text in which the position of an error is searched, to bound the time that takes. */
const MAX_SEARCHED_LENGTH = 256 * 1024;

/**
 * The request's body, which must be a JSON object.
 * @throws {HttpError} 413, 415
 * @throws {RequestError} not UTF-8, not JSON, not an object
 */
export async function readJsonObject(exchange: Exchange, maxBytes: number): Promise<JsonObject> {
  checkHeaders(exchange);
  return parseObject(await exchange.readBody(maxBytes));
}

/** As `readJsonObject`, of a body that may be left out: then without fields. */
export async function readOptionalJsonObject(
  exchange: Exchange,
  maxBytes: number,
): Promise<JsonObject> {
  const bytes = await exchange.readBody(maxBytes);
  if (bytes.byteLength === 0) return {};
  checkHeaders(exchange);
  return parseObject(bytes);
}

function checkHeaders(exchange: Exchange): void {
  checkContentType(exchange.headers("content-type"));
  const encoding = exchange.header("content-encoding");
  if (encoding !== null && encoding !== "identity") {
    throw new HttpError(
      STATUS_CODE.UnsupportedMediaType,
      `Content-Encoding is "${encoding.slice(0, 100)}"; send the request uncompressed.`,
    );
  }
}

function parseObject(bytes: Uint8Array): JsonObject {
  const value = parseJson(decodeUtf8(bytes));
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RequestError('The request body must be a JSON object such as {"prompt": "..."}.');
  }
  return value as JsonObject;
}

/** @throws {HttpError} 415 unless it is absent, or JSON in UTF-8 */
function checkContentType(values: readonly string[]): void {
  if (values.length === 0) return;
  const [value] = values;
  const isJson = /^application\/(json|[\w.-]+\+json)\s*(;|$)/i.test(value);
  const charset = /;\s*charset\s*=\s*"?([^\s;"]*)/i.exec(value)?.[1] ?? "utf-8";
  if (values.length === 1 && isJson && /^(utf-?8|us-ascii)$/i.test(charset)) return;
  const given = values.length > 1
    ? `There are ${values.length} Content-Type headers`
    : `Content-Type is "${value.slice(0, 100)}"`;
  throw new HttpError(
    STATUS_CODE.UnsupportedMediaType,
    `${given}; send the request as "application/json"${isJson ? " in UTF-8" : ""}.`,
  );
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new RequestError(
      "The request body is not valid UTF-8. Send JSON in UTF-8; tokens that are no text, as ids.",
    );
  }
}

function parseJson(text: string): unknown {
  if (text.trim() === "") throw new RequestError("The request body is empty. Send a JSON object.");
  try {
    return JSON.parse(text);
  } catch (error) {
    const { message } = error as Error;
    const where = /at position \d+/.test(message) ? "" : ` (at position ${errorPosition(text)})`;
    throw new RequestError(`The request body is not valid JSON: ${message}${where}.`);
  }
}

/**
 * Index of the first wrong character, for the messages in which V8 does not tell it: those of the
 * form `Unexpected token 'N', ..."re": NaN}" is not valid JSON`. A prefix that contains the
 * character fails in that way and a shorter one does not, so halving finds it.
 */
function errorPosition(text: string): number | string {
  if (!hasUnexpectedToken(text)) return text.length;
  if (text.length > MAX_SEARCHED_LENGTH) return `unknown, among ${text.length} characters`;
  let good = 0;
  let bad = text.length;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (hasUnexpectedToken(text.slice(0, middle))) bad = middle;
    else good = middle;
  }
  return good;
}

function hasUnexpectedToken(text: string): boolean {
  try {
    JSON.parse(text);
    return false;
  } catch (error) {
    return (error as Error).message.startsWith("Unexpected token");
  }
}
