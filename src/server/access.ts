/** Who may use the service: API keys, and clients that send wrong tokens. */
import { STATUS_CODE } from "@std/http/status";
import { createHash, timingSafeEqual } from "node:crypto";
import type { Log } from "../core/log.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";

/** Wrong tokens of one address within {@linkcode WINDOW_MS} after which it has to wait. */
const FREE_ATTEMPTS = 10;
const WINDOW_MS = 60_000;
/** How long it waits for each further attempt. */
const PENALTY_MS = 1_000;
/** Attempts that may wait at the same time, of all addresses. */
const MAX_WAITING = 32;
/** Addresses that are remembered; of more, the oldest is forgotten. */
const MAX_ADDRESSES = 1024;

/**
 * Slows down guessing: after ten wrong tokens within a minute, each request with a token from that address waits
 * for a second before the token is looked at.
 */
export class WrongTokens {
  readonly #attempts = new Map<string, { count: number; readonly sinceMs: number }>();
  #waiting = 0;

  constructor(
    private readonly log: Log,
    private readonly penaltyMs = PENALTY_MS,
  ) {}

  /** @throws {HttpError} 429: too many requests are waiting already */
  async admit({ address }: Exchange): Promise<void> {
    if ((this.#recent(address)?.count ?? 0) < FREE_ATTEMPTS) return;
    if (this.#waiting >= MAX_WAITING) {
      throw new HttpError(
        STATUS_CODE.TooManyRequests,
        "Too many wrong tokens came from this address. Retry later.",
        { code: "too_many_wrong_tokens", headers: { "retry-after": "60" } },
      );
    }
    this.#waiting++;
    await new Promise((resolve) => setTimeout(resolve, this.penaltyMs));
    this.#waiting--;
  }

  /** Counts and logs a wrong token; it is never logged itself. */
  note({ address, path, requestId: id }: Exchange, kind: string): void {
    const attempt = this.#recent(address) ?? { count: 0, sinceMs: performance.now() };
    attempt.count++;
    this.#attempts.delete(address);
    this.#attempts.set(address, attempt);
    if (this.#attempts.size > MAX_ADDRESSES) {
      this.#attempts.delete(this.#attempts.keys().next().value!);
    }
    if (attempt.count > FREE_ATTEMPTS) return;
    this.log.warn(`a client sent a wrong ${kind}`, { address, path: path.slice(0, 200), id });
    if (attempt.count < FREE_ATTEMPTS) return;
    this.log.warn("further wrong tokens of this address are slowed down and not logged", {
      address,
    });
  }

  #recent(address: string) {
    const attempt = this.#attempts.get(address);
    return attempt && performance.now() - attempt.sinceMs < WINDOW_MS ? attempt : undefined;
  }
}

/** The keys of `--api-key`; without any, every client may use the service. */
export class ApiKeys {
  readonly #digests: readonly Uint8Array[];

  constructor(keys: readonly string[], private readonly wrongTokens: WrongTokens) {
    this.#digests = keys.map(digest);
  }

  /** @throws {HttpError} 401: no key, or a wrong one; 429 */
  async check(exchange: Exchange): Promise<void> {
    if (this.#digests.length === 0) return;
    const given = bearerToken(exchange);
    if (given === null) throw unauthorized("This route needs an API key");
    await this.wrongTokens.admit(exchange);
    if (isOneOf(given, this.#digests)) return;
    this.wrongTokens.note(exchange, "API key");
    throw unauthorized("The API key is not one of this server's");
  }
}

function unauthorized(what: string): HttpError {
  return new HttpError(
    STATUS_CODE.Unauthorized,
    `${what}; send the header "Authorization: Bearer KEY" with a key of --api-key.`,
    { code: "invalid_api_key", headers: { "www-authenticate": 'Bearer realm="llumnix"' } },
  );
}

/** The token of the header `Authorization: Bearer TOKEN`; null if there is none. */
export function bearerToken(exchange: Exchange): string | null {
  return /^Bearer +(.*)$/i.exec(exchange.header("authorization") ?? "")?.[1] ?? null;
}

/** Whether a token is one of those with these digests. Takes the same time wherever they differ. */
export function isOneOf(token: string, digests: readonly Uint8Array[]): boolean {
  const given = digest(token);
  let isOne = false;
  for (const known of digests) isOne = timingSafeEqual(given, known) || isOne;
  return isOne;
}

/** Digests are of one length, as a comparison in constant time needs. */
export function digest(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}
