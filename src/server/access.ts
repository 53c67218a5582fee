/** Who may use the service: API keys, and clients that send wrong tokens. */
import { STATUS_CODE } from "@std/http/status";
import { createHash, timingSafeEqual } from "node:crypto";
import { realClock } from "../core/clock.ts";
import type { Log } from "../core/log.ts";
import { FREE_ATTEMPTS, WrongAttempts } from "../core/wrong_attempts.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";

/** Slows down clients that guess tokens, by their address: see {@linkcode WrongAttempts}. */
export class WrongTokens {
  readonly #attempts: WrongAttempts;

  constructor(private readonly log: Log, penaltyMs?: number) {
    this.#attempts = new WrongAttempts(realClock, penaltyMs);
  }

  /** @throws {HttpError} 429: too many requests are waiting already */
  async admit({ address }: Exchange): Promise<void> {
    if (await this.#attempts.admit(address)) return;
    throw new HttpError(
      STATUS_CODE.TooManyRequests,
      `More than ${FREE_ATTEMPTS} wrong tokens or keys came from this address within a minute, and ` +
        "too many of its requests wait to have theirs looked at. Check the token, and retry in a minute.",
      { code: "too_many_wrong_tokens", headers: { "retry-after": "60" } },
    );
  }

  /** Counts and logs a wrong token; it is never logged itself. */
  note({ address, path, requestId: id }: Exchange, kind: string): void {
    const count = this.#attempts.note(address);
    if (count > FREE_ATTEMPTS) return;
    this.log.warn(`a client sent a wrong ${kind}`, { address, path: path.slice(0, 200), id });
    if (count < FREE_ATTEMPTS) return;
    this.log.warn("further wrong tokens of this address are slowed down and not logged", {
      address,
    });
  }
}

/** The keys of `--api-key`; without any, every client may use the service. */
export class ApiKeys {
  readonly #digests: readonly Uint8Array[];

  constructor(keys: readonly string[], private readonly wrongTokens: WrongTokens) {
    this.#digests = keys.map(digest);
  }

  get areNeeded(): boolean {
    return this.#digests.length > 0;
  }

  /** @throws {HttpError} 401: no key, or a wrong one; 429 */
  async check(exchange: Exchange): Promise<void> {
    if (!this.areNeeded) return;
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
