/**
 * Errors a caller can act on, one class per cause. A message says what was wrong, what was expected
 * and what to do. Anything that is not one of these is a bug and may show its stack.
 */

/** Stable names of the causes; they travel over the bus and select an HTTP status. */
export const errorKinds = [
  "usage",
  "model",
  "invalid_request",
  "overloaded",
  "unavailable",
  "not_found",
  "conflict",
  "internal",
] as const;

export type ErrorKind = typeof errorKinds[number];

export function isErrorKind(value: unknown): value is ErrorKind {
  return (errorKinds as readonly unknown[]).includes(value);
}

/** Whether only the user can fix the error: the program exits with code 2, and a retry is of no use. */
export function isForTheUser(kind: ErrorKind): boolean {
  return kind === "usage" || kind === "model";
}

/** Base of every deliberate error. `kind` survives serialisation; the class does not have to. */
export class LlumnixError extends Error {
  override name = "LlumnixError";
  constructor(readonly kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** A command line, configuration file or environment that cannot be served: exit code 2. */
export class UsageError extends LlumnixError {
  override name = "UsageError";
  constructor(message: string, options?: ErrorOptions) {
    super("usage", message, options);
  }
}

/** A model that is missing, incomplete, corrupt, of an unsupported kind or computes NaN: exit code 2. */
export class ModelError extends LlumnixError {
  override name = "ModelError";
  constructor(message: string, options?: ErrorOptions) {
    super("model", message, options);
  }
}

/** A request that can never be served as written: HTTP 400. `param` names the offending field. */
export class RequestError extends LlumnixError {
  override name = "RequestError";
  constructor(message: string, readonly param: string | null = null, options?: ErrorOptions) {
    super("invalid_request", message, options);
  }
}

/**
 * A message of another process that does not fit the protocol, or comes when none was expected: its
 * connection is closed. The text names the field, or what was expected.
 */
export class MessageError extends LlumnixError {
  override name = "MessageError";
  constructor(message: string, options?: ErrorOptions) {
    super("invalid_request", message, options);
  }
}

/** The service is full; the same request may succeed after `retryAfterSeconds`: HTTP 429. */
export class OverloadedError extends LlumnixError {
  override name = "OverloadedError";
  constructor(message: string, readonly retryAfterSeconds = 1, options?: ErrorOptions) {
    super("overloaded", message, options);
  }
}

/** No instance can take the request, or the service is stopping: HTTP 503. */
export class UnavailableError extends LlumnixError {
  override name = "UnavailableError";
  constructor(message: string, options?: ErrorOptions) {
    super("unavailable", message, options);
  }
}

/** Whoever was to answer at an address is gone: not late, not out of reach. */
export class NobodyListensError extends UnavailableError {
  override name = "NobodyListensError";
}

/** What is there now does not allow it; later it may: HTTP 409. */
export class ConflictError extends LlumnixError {
  override name = "ConflictError";
  constructor(message: string, options?: ErrorOptions) {
    super("conflict", message, options);
  }
}

/** The error of a process that needs a manager when no manager answers. */
export function noManagerError(address: string, cause: Error): UnavailableError {
  return new UnavailableError(
    `no manager answers at ${address} (${cause.message}). Start one (llumnix manager), or say ` +
      "where it is (--manager-address).",
    { cause },
  );
}

/** Form in which an error crosses the bus. */
export interface ErrorRecord {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly param?: string | null;
  /** With kind `overloaded`. */
  readonly retryAfterSeconds?: number;
}

/** Turns anything thrown into its wire form; unknown errors become `internal`. */
export function toErrorRecord(error: unknown): ErrorRecord {
  if (error instanceof RequestError) {
    return { kind: error.kind, message: error.message, param: error.param };
  }
  if (error instanceof OverloadedError) {
    const { kind, message, retryAfterSeconds } = error;
    return { kind, message, retryAfterSeconds };
  }
  if (error instanceof LlumnixError) return { kind: error.kind, message: error.message };
  return { kind: "internal", message: error instanceof Error ? error.message : String(error) };
}

/** The inverse of {@linkcode toErrorRecord}. */
export function fromErrorRecord(record: ErrorRecord): LlumnixError {
  switch (record.kind) {
    case "usage":
      return new UsageError(record.message);
    case "model":
      return new ModelError(record.message);
    case "invalid_request":
      return new RequestError(record.message, record.param ?? null);
    case "overloaded":
      return new OverloadedError(record.message, record.retryAfterSeconds);
    case "unavailable":
      return new UnavailableError(record.message);
    case "conflict":
      return new ConflictError(record.message);
    default:
      return new LlumnixError(record.kind, record.message);
  }
}
