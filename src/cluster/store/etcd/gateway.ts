import { UsageError } from "../../../core/errors.ts";
import { realClock } from "../../../core/clock.ts";
import { HEDGE_PART, hedged } from "../hedged.ts";
import { MAX_ENTRIES, MAX_VALUE_BYTES, StoreAwayError, StoreRefusedError } from "../lease_store.ts";
import type { StoreOptions } from "../store_kind.ts";
import { within } from "../within.ts";

/** A list of the largest size, with its base64 and field names. */
const MAX_ANSWER_BYTES = MAX_ENTRIES * (MAX_VALUE_BYTES * 4 / 3 + 1_024);
const NOT_FOUND = 404;
/** gRPC status codes in error answers (google.rpc.Code). */
const INVALID_ARGUMENT = 3,
  PERMISSION_DENIED = 7,
  FAILED_PRECONDITION = 9,
  UNAUTHENTICATED = 16;

/** An error answer of the gateway. */
interface GatewayError {
  readonly code?: number;
  readonly message?: string;
  readonly error?: string;
}

/** Time for etcd to check a password. */
const LOGIN_LIMIT_MS = 10_000;
/** A password that etcd has refused is not sent again before: each check takes it a part of a core. */
const REFUSED_PAUSE_MS = 1_000;
/** Least attempts of a call: with one member, both are made there. */
const MIN_ATTEMPTS = 2;

interface GatewayRequest {
  readonly path: string;
  readonly body: unknown;
  /** Null: without a user, or to log in. */
  readonly token: string | null;
}

/** What a member has answered to a call. */
interface GatewayAnswer {
  readonly response: Response;
  readonly answer: unknown;
}

/**
 * The JSON gateway of etcd's members: POST of a request, answer as JSON. Members are asked in turn: one that
 * does not answer is the last to be asked again.
 */
export class Gateway {
  readonly #bases: string[];
  readonly #client: Deno.HttpClient | undefined;
  readonly #closing = new AbortController();
  /** Of the user; null: not logged in, or without a user. */
  #token: string | null = null;
  /** Under way, or refused less than {@linkcode REFUSED_PAUSE_MS} ago. */
  #login: Promise<string> | null = null;
  #cancelPause: () => void = () => {};

  /** @throws {UsageError} a password without a user, or certificates that are none */
  constructor(private readonly options: StoreOptions) {
    const { servers, credentials: { user, password, authority } } = options;
    if ((user === undefined) !== (password === undefined)) {
      throw new UsageError("etcd: takes a user and a password together");
    }
    this.#bases = servers.map((server) =>
      `${authority === undefined ? "http" : "https"}://${server}`
    );
    if (authority === undefined) return;
    // Deno takes any text, and trusts none then.
    if (!authority.includes("-----BEGIN CERTIFICATE-----")) {
      throw new UsageError("the certificates for etcd are not PEM (-----BEGIN CERTIFICATE-----)");
    }
    // HTTP/2 would send all calls over one connection, also those that are made again.
    this.#client = Deno.createHttpClient({ caCerts: [authority], http2: false });
  }

  /**
   * One call, within the time limit. It may be sent several times, and so be done more than once.
   * @throws {StoreAwayError} no member answers
   * @throws {StoreRefusedError} etcd refuses the call
   */
  async call(path: string, body: unknown): Promise<unknown> {
    const timeoutMs = this.options.timeoutMs;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeoutMs)]);
    return await this.#authorised((token) => this.#ask({ path, body, token }, signal, timeoutMs));
  }

  /**
   * Opens a stream of answers. The time limit is for its beginning.
   * @throws {StoreAwayError} no member answers
   * @throws {StoreRefusedError} etcd refuses the call
   */
  async stream(
    path: string,
    body: unknown,
    signal: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>> {
    const begin = new AbortController();
    const timer = setTimeout(() => begin.abort(), this.options.timeoutMs);
    const all = AbortSignal.any([this.#closing.signal, signal, begin.signal]);
    try {
      const answer = await this.#authorised(async (token) => {
        const response = await this.#post({ path, body, token }, all);
        return { response, answer: response.ok ? response.body : await this.#json(response) };
      });
      return answer as ReadableStream<Uint8Array>;
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#cancelPause();
    this.#client?.close();
  }

  /** Tokens of users expire: the call is repeated once with a fresh one. */
  async #authorised(send: (token: string | null) => Promise<GatewayAnswer>): Promise<unknown> {
    const hadToken = this.#token !== null;
    const token = await this.#tokenNow();
    const first = await send(token);
    if (first.response.ok) return first.answer;
    if (!hadToken || !isUnauthenticated(first.answer)) throw this.#refusal(first);
    if (this.#token === token) this.#token = null; // else another call has a fresh one already
    const second = await send(await this.#tokenNow());
    if (second.response.ok) return second.answer;
    throw this.#refusal(second);
  }

  /**
   * Null: without a user. Calls share a login, which goes on when their time is over: etcd takes a tenth of
   * a second of a core to check a password, and a busy one far longer.
   */
  async #tokenNow(): Promise<string | null> {
    if (this.options.credentials.user === undefined) return null;
    if (this.#token !== null) return this.#token;
    this.#login ??= this.#logIn();
    return await within(this.#login, this.options.timeoutMs, "etcd's check of the password");
  }

  async #logIn(): Promise<string> {
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(LOGIN_LIMIT_MS)]);
    const { user: name, password } = this.options.credentials;
    let pauseMs = 0;
    try {
      const request = { path: "/v3/auth/authenticate", body: { name, password }, token: null };
      const asked = await this.#ask(request, signal, LOGIN_LIMIT_MS);
      const { token } = asked.answer as { token?: unknown };
      if (!asked.response.ok) throw this.#refusal(asked);
      if (typeof token !== "string") throw this.#strange("no token");
      return this.#token = token;
    } catch (error) {
      if (error instanceof StoreRefusedError) pauseMs = REFUSED_PAUSE_MS;
      throw error;
    } finally {
      const end = () => this.#login = null;
      if (pauseMs === 0) end();
      else this.#cancelPause = realClock.after(pauseMs, end);
    }
  }

  /** The first answer: of the first member, or of the next ones if it takes long or cannot be reached. */
  async #ask(
    request: GatewayRequest,
    signal: AbortSignal,
    limitMs: number,
  ): Promise<GatewayAnswer> {
    const reasons = new Set<string>();
    const bases = [...this.#bases];
    while (bases.length < MIN_ATTEMPTS) bases.push(bases[0]);
    const [first, ...others] = bases.map((base) => async () => {
      const response = await this.#postTo(base, request, signal, reasons);
      return { response, answer: await this.#json(response) };
    });
    try {
      return await hedged([first, ...others], limitMs * HEDGE_PART);
    } catch (error) {
      throw reasons.size > 0 ? awayBecause(reasons) : error;
    }
  }

  /** To the first member that can be reached. */
  async #post(request: GatewayRequest, signal: AbortSignal): Promise<Response> {
    const reasons = new Set<string>();
    for (const base of [...this.#bases]) {
      try {
        return await this.#postTo(base, request, signal, reasons);
      } catch {
        if (signal.aborted) break;
      }
    }
    throw awayBecause(reasons);
  }

  /** @param reasons why a member cannot be reached is added to them */
  async #postTo(
    base: string,
    { path, body, token }: GatewayRequest,
    signal: AbortSignal,
    reasons: Set<string>,
  ): Promise<Response> {
    try {
      const headers: Record<string, string> = { "content-type": "application/json" };
      if (token !== null) headers.authorization = token;
      const init = { method: "POST", body: JSON.stringify(body), headers, signal };
      return await fetch(base + path, { ...init, client: this.#client } as RequestInit);
    } catch (error) {
      this.#bases.push(...this.#bases.splice(this.#bases.indexOf(base), 1));
      reasons.add(`${base}: ${this.#why(error)}`);
      throw error;
    }
  }

  async #json(response: Response): Promise<unknown> {
    try {
      return JSON.parse(await readBounded(response.body, MAX_ANSWER_BYTES));
    } catch (error) {
      if (error instanceof SyntaxError && response.status === NOT_FOUND) throw noGatewayError();
      if (error instanceof SyntaxError) throw this.#strange(`status ${response.status}, no JSON`);
      throw error instanceof StoreRefusedError
        ? error
        : new StoreAwayError(`etcd does not answer: ${this.#why(error)}`);
    }
  }

  #why(error: unknown): string {
    const { name, message, cause } = error as Error;
    if (this.#closing.signal.aborted) return "the store is closed";
    const isLate = name === "TimeoutError" || name === "AbortError";
    if (isLate) return `no answer in ${this.options.timeoutMs} ms`;
    // Such as that the certificate is of another authority.
    return cause instanceof Error ? `${message}: ${cause.message}` : message;
  }

  #refusal({ response: { status }, answer }: GatewayAnswer): Error {
    const { code, message, error } = answer as GatewayError;
    const text = String(message ?? error ?? `status ${status}`).slice(0, 500);
    if (status === NOT_FOUND) return noGatewayError();
    // etcd reports a wrong password, and a user who is needed and not given, as a wrong argument, and a
    // user of an etcd without users as a wrong state.
    const isAboutUser = code === UNAUTHENTICATED || code === PERMISSION_DENIED ||
      ((code === INVALID_ARGUMENT || code === FAILED_PRECONDITION) &&
        /auth|user|password/i.test(text));
    if (isAboutUser) return this.#refusedUser(text);
    return new StoreAwayError(`etcd cannot do it now: ${text}`);
  }

  #refusedUser(text: string): StoreRefusedError {
    const what = this.options.credentials.user === undefined
      ? "etcd wants a user and a password, and none are given"
      : "etcd refuses these credentials";
    return new StoreRefusedError(`${what}: ${text}; see --cluster-credentials`);
  }

  #strange(what: string): StoreRefusedError {
    return new StoreRefusedError(`the server at ${this.#bases[0]} is no etcd: ${what}`);
  }
}

function noGatewayError(): StoreRefusedError {
  return new StoreRefusedError(
    "there is no JSON gateway of etcd at /v3: expected the client port of etcd 3.4 or later",
  );
}

function awayBecause(reasons: ReadonlySet<string>): StoreAwayError {
  return new StoreAwayError(`etcd does not answer: ${[...reasons].join("; ")}`);
}

/** etcd says so of a token that has expired, or that was made before the users changed. */
function isUnauthenticated(answer: unknown): boolean {
  const { code, message, error } = answer as GatewayError;
  return code === UNAUTHENTICATED ||
    /invalid auth|revision in header is old/i.test(String(message ?? error));
}

async function readBounded(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "", bytes = 0;
  for await (const piece of body ?? []) {
    bytes += piece.length;
    if (bytes > maxBytes) {
      throw new StoreRefusedError(`etcd's answer is over the limit of ${maxBytes} bytes`);
    }
    text += decoder.decode(piece, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * The lines of a stream.
 * @throws {StoreRefusedError} a line is longer than any that etcd sends of what is written here
 */
export async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of body) {
    const parts = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = parts.pop()!;
    for (const line of parts) if (line !== "") yield line;
    if (rest.length > MAX_ANSWER_BYTES) throw new StoreRefusedError("etcd sent an endless line");
  }
}
