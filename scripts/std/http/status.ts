/**
 * Stand-in for `@std/http/status`: the status codes that this project sends, with the names, values
 * and types of the real package.
 */

/** Status codes by name. */
export const STATUS_CODE = {
  OK: 200,
  Accepted: 202,
  NoContent: 204,
  NotModified: 304,
  BadRequest: 400,
  Unauthorized: 401,
  Forbidden: 403,
  NotFound: 404,
  MethodNotAllowed: 405,
  RequestTimeout: 408,
  Conflict: 409,
  ContentTooLarge: 413,
  UnsupportedMediaType: 415,
  TooManyRequests: 429,
  RequestHeaderFieldsTooLarge: 431,
  InternalServerError: 500,
  NotImplemented: 501,
  ServiceUnavailable: 503,
} as const;

/** A status code. */
export type StatusCode = typeof STATUS_CODE[keyof typeof STATUS_CODE];

/** Reason phrases by code. */
export const STATUS_TEXT = {
  [STATUS_CODE.OK]: "OK",
  [STATUS_CODE.Accepted]: "Accepted",
  [STATUS_CODE.NoContent]: "No Content",
  [STATUS_CODE.NotModified]: "Not Modified",
  [STATUS_CODE.BadRequest]: "Bad Request",
  [STATUS_CODE.Unauthorized]: "Unauthorized",
  [STATUS_CODE.Forbidden]: "Forbidden",
  [STATUS_CODE.NotFound]: "Not Found",
  [STATUS_CODE.MethodNotAllowed]: "Method Not Allowed",
  [STATUS_CODE.RequestTimeout]: "Request Timeout",
  [STATUS_CODE.Conflict]: "Conflict",
  [STATUS_CODE.ContentTooLarge]: "Content Too Large",
  [STATUS_CODE.UnsupportedMediaType]: "Unsupported Media Type",
  [STATUS_CODE.TooManyRequests]: "Too Many Requests",
  [STATUS_CODE.RequestHeaderFieldsTooLarge]: "Request Header Fields Too Large",
  [STATUS_CODE.InternalServerError]: "Internal Server Error",
  [STATUS_CODE.NotImplemented]: "Not Implemented",
  [STATUS_CODE.ServiceUnavailable]: "Service Unavailable",
} as const;
