/**
 * Errors as clients see them: OpenAI's form, with the HTTP status that fits the cause.
 */
import { LlumnixError, OverloadedError, RequestError } from "../core/errors.ts";
import { STATUS_CODE, type StatusCode } from "@std/http/status";

/** A refusal with a status of HTTP itself, such as 401, 404, 405, 413 or 415. */
export class HttpError extends LlumnixError {
  override name = "HttpError";
  constructor(
    readonly status: StatusCode,
    message: string,
    readonly details: {
      readonly param?: string;
      readonly code?: string;
      readonly headers?: Readonly<Record<string, string>>;
    } = {},
  ) {
    super(status === STATUS_CODE.NotFound ? "not_found" : "invalid_request", message);
  }
}

/** The client closed its connection before the answer. Logged with status 499, as in Llumnix and nginx. */
export class ClientLeftError extends Error {
  override name = "ClientLeftError";
}

/** The body `{"error": ...}` of OpenAI's API. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

export interface ErrorReply {
  readonly status: StatusCode;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ErrorBody;
}

/** Status, headers and body for anything that a handler throws. */
export function toErrorReply(error: unknown): ErrorReply {
  const message = error instanceof Error ? error.message : String(error);
  const reply = (
    status: StatusCode,
    type: string,
    code: string | null,
    param: string | null = null,
    headers: Readonly<Record<string, string>> = {},
  ): ErrorReply => ({ status, headers, body: { error: { message, type, param, code } } });

  if (error instanceof HttpError) {
    const { param, code, headers } = error.details;
    return reply(error.status, "invalid_request_error", code ?? null, param ?? null, headers);
  }
  if (error instanceof LlumnixError) {
    switch (error.kind) {
      case "invalid_request": {
        const param = error instanceof RequestError ? error.param : null;
        return reply(STATUS_CODE.BadRequest, "invalid_request_error", null, param);
      }
      case "not_found":
        return reply(STATUS_CODE.NotFound, "invalid_request_error", "not_found");
      case "conflict":
        return reply(STATUS_CODE.Conflict, "invalid_request_error", "conflict");
      case "overloaded": {
        const seconds = error instanceof OverloadedError ? error.retryAfterSeconds : 1;
        return reply(STATUS_CODE.TooManyRequests, "rate_limit_error", "overloaded", null, {
          "retry-after": String(Math.max(1, Math.ceil(seconds))),
        });
      }
      case "unavailable":
        return reply(STATUS_CODE.ServiceUnavailable, "server_error", "unavailable", null, {
          "retry-after": "1",
        });
    }
  }
  return reply(STATUS_CODE.InternalServerError, "server_error", "internal");
}
