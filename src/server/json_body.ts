/** Request bodies as JSON objects, with errors that say where they are wrong. */
import { STATUS_CODE } from "@std/http/status";
import { createHash } from "node:crypto";
import { RequestError } from "../core/errors.ts";
import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { jsonLimits, JsonScanner } from "./json_scanner.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

export interface JsonBodyOptions {
  /** Values that the body may have, where more than {@linkcode jsonLimits} says. */
  readonly maxValues?: number;
  /** Read a body of any content type, unless a page of another site sends it; default false. */
  readonly anyContentType?: boolean;
}

/** The body of a request to generate; a prompt as token ids may be as long as the model allows. */
export function readGenerationBody(
  exchange: Exchange,
  { options, service }: ServerContext,
  { anyContentType = false } = {},
): Promise<JsonObject> {
  const maxValues = 2 * service.model.maxModelLen;
  return readJsonObject(exchange, options.maxBodyBytes, { anyContentType, maxValues });
}

/** Longest text in which the position of an error is searched, to bound the time that takes. */
const MAX_SEARCHED_LENGTH = 32 * 1024;

/** What parsing a value costs, in bytes of text that take as long. */
const BYTES_PER_VALUE = 16;

/**
 * The request's body, which must be a JSON object. A `seed` that a JavaScript number cannot express is a
 * bigint in it.
 * @throws {HttpError} 413, 415
 * @throws {RequestError} not UTF-8, not JSON, not an object, or larger than {@linkcode jsonLimits}
 */
export async function readJsonObject(
  exchange: Exchange,
  maxBytes: number,
  { anyContentType = false, maxValues = 0 }: JsonBodyOptions = {},
): Promise<JsonObject> {
  checkHeaders(exchange, anyContentType);
  const values = Math.max(jsonLimits.values, maxValues);
  const scanner = new JsonScanner({ ...jsonLimits, values });
  const bytes = await exchange.readBody(maxBytes, (chunk) => scanner.push(chunk));
  return await parseInTurn(exchange, bytes, scanner);
}

/** Like {@linkcode readJsonObject}, for a body that may be left out: the object is then empty. */
export async function readOptionalJsonObject(
  exchange: Exchange,
  maxBytes: number,
): Promise<JsonObject> {
  const scanner = new JsonScanner();
  const bytes = await exchange.readBody(maxBytes, (chunk) => scanner.push(chunk));
  if (bytes.byteLength === 0) return {};
  checkHeaders(exchange, false);
  return await parseInTurn(exchange, bytes, scanner);
}

/**
 * A page of any site may send a body without asking the server first (CORS), if its content type is one of a
 * form, or none. So bodies of other sites need the type that a page cannot send without asking.
 */
function checkHeaders(exchange: Exchange, anyContentType: boolean): void {
  const isForeign = comesFromAnotherSite(exchange);
  if (!anyContentType || isForeign) {
    checkContentType(exchange.headers("content-type"), isForeign);
  }
  const encoding = exchange.header("content-encoding");
  if (encoding === null || encoding === "identity" || encoding === "gzip") return;
  throw new HttpError(
    STATUS_CODE.UnsupportedMediaType,
    `Content-Encoding is "${encoding.slice(0, 100)}"; send the request as gzip or uncompressed.`,
  );
}

/** Whether a browser says that a page of another site sends the request. */
function comesFromAnotherSite(exchange: Exchange): boolean {
  const origin = exchange.header("origin");
  if (origin === null) return false;
  const host = URL.canParse(origin) ? new URL(origin).host : null;
  return host === null || host !== exchange.header("host");
}

async function parseInTurn(
  exchange: Exchange,
  bytes: Uint8Array,
  scanner: JsonScanner,
): Promise<JsonObject> {
  await exchange.shared.parsing.take(bytes.byteLength + BYTES_PER_VALUE * scanner.values);
  const value = parseJson(decodeUtf8(bytes));
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RequestError('The request body must be a JSON object such as {"prompt": "..."}.');
  }
  const body = value as Record<string, unknown>;
  if (body.resumable === true) {
    exchange.bodyDigest = createHash("sha256").update(bytes).digest("base64url");
  }
  const { seed } = body;
  if (typeof seed === "number" && Number.isInteger(seed) && !Number.isSafeInteger(seed)) {
    body.seed = exactInteger(bytes, scanner, "seed") ?? seed;
  }
  return body;
}

/** The integer that a top-level field is written as, where a number would lose digits; else null. */
function exactInteger(bytes: Uint8Array, scanner: JsonScanner, field: string): bigint | null {
  const text = (start: number, end: number) => decodeUtf8(bytes.subarray(start, end));
  const key = scanner.topLevelKeys.findLast(([start, end]) =>
    end - start === field.length && text(start, end) === field
  );
  if (key === undefined) return null;
  // White space of any length may precede the digits.
  let start = key[1] + 1;
  while (start < bytes.length && !isDigitOrMinus(bytes[start])) start++;
  let end = start;
  while (end < bytes.length && isDigitOrMinus(bytes[end])) end++;
  const digits = end - start <= MAX_INTEGER_DIGITS ? text(start, end) : "";
  const isWhole = end === bytes.length || !".eE".includes(String.fromCharCode(bytes[end]));
  return isWhole && /^-?\d+$/.test(digits) ? BigInt(digits) : null;
}

/** More than any 64-bit integer has, sign included. */
const MAX_INTEGER_DIGITS = 20;

function isDigitOrMinus(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39 || byte === 0x2d;
}

/**
 * @param isNeeded there must be one
 * @throws {HttpError} 415 unless it is absent, or JSON in UTF-8
 */
function checkContentType(values: readonly string[], isNeeded: boolean): void {
  if (values.length === 0) {
    if (!isNeeded) return;
    throw new HttpError(
      STATUS_CODE.UnsupportedMediaType,
      'A page of another site sends no Content-Type; send the request as "application/json".',
    );
  }
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
 * Index of the first wrong character, for messages of V8 without a position, such as
 * `Unexpected token 'N', ..."re": NaN}" is not valid JSON`. A prefix with that character fails in the same way
 * and a shorter prefix does not, so bisection finds it.
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
