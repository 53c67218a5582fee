/** Which pages may use the service from a browser (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol). */
import { STATUS_CODE } from "@std/http/status";
import { UsageError } from "../core/errors.ts";
import { isLoopback } from "../core/hosts.ts";
import type { ServerOptions } from "../core/options.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";

/** Seconds for which a browser may remember the answer to a preflight request. */
const MAX_AGE_SECONDS = 600;

export class CorsPolicy {
  readonly #origins: readonly string[];
  readonly #methods: readonly string[];
  readonly #headers: readonly string[];
  readonly #allowsCredentials: boolean;
  /** The server listens on its own host only. */
  isLocal: boolean;

  /** @throws {UsageError} an option that is no JSON array of strings */
  constructor(options: ServerOptions) {
    this.#origins = strings("--allowed-origins", options.allowedOrigins, []);
    this.#methods = strings("--allowed-methods", options.allowedMethods, ["*"]);
    this.#headers = strings("--allowed-headers", options.allowedHeaders, ["*"]);
    this.#allowsCredentials = options.allowCredentials;
    this.isLocal = isLoopback(options.host);
  }

  /** Pages of every site may read answers. */
  get allowsAll(): boolean {
    return this.#origins.includes("*");
  }

  allows(origin: string): boolean {
    return this.allowsAll || this.#origins.includes(origin);
  }

  /**
   * A page of another site may give its own name the address of this host, so that its browser takes this
   * server for the page's (DNS rebinding). A server for this host alone therefore takes requests of pages
   * only under a name of this host.
   * @throws {HttpError} 403
   */
  checkName(exchange: Exchange): void {
    const origin = exchange.header("origin");
    if (origin === null || this.allows(origin)) return;
    const site = URL.parse(origin);
    if (site === null || site.host !== exchange.header("host")) return; // other sites need CORS
    this.#checkSite(site);
  }

  /**
   * The same for a route that only pages GET: browsers send no Origin with a GET to the page's own server,
   * so the name that the page gave this host is in the header Host alone.
   * @throws {HttpError} 403
   */
  checkHost(exchange: Exchange): void {
    const site = URL.parse(`http://${exchange.header("host")}`);
    if (site === null || this.allowsAll) return;
    if (this.#origins.some((origin) => URL.parse(origin)?.host === site.host)) return;
    this.#checkSite(site);
  }

  #checkSite(site: URL): void {
    if (!this.isLocal || isLoopback(site.hostname.replace(/^\[|\]$/g, ""))) return;
    throw new HttpError(
      STATUS_CODE.Forbidden,
      `Pages of ${
        site.host.slice(0, 100)
      } may not use this server, which listens on its own host ` +
        "only: open it as localhost, or add the page's origin to --allowed-origins.",
      { code: "origin" },
    );
  }

  /** Adds what a browser needs to show the answer to the page that asked. */
  apply(exchange: Exchange): void {
    if (this.#origins.length === 0) return;
    exchange.setHeader("vary", "Origin");
    const origin = exchange.header("origin");
    if (origin === null || !this.allows(origin)) return;
    const isForAll = this.allowsAll && !this.#allowsCredentials;
    exchange.setHeader("access-control-allow-origin", isForAll ? "*" : origin);
    exchange.setHeader("access-control-expose-headers", "x-request-id, x-resume-id, retry-after");
    if (this.#allowsCredentials) exchange.setHeader("access-control-allow-credentials", "true");
  }

  /**
   * Answers a preflight request.
   * @returns false if it is none
   * @throws {HttpError} 400: the origin or the method is not allowed
   */
  answerPreflight(exchange: Exchange): boolean {
    const origin = exchange.header("origin");
    const method = exchange.header("access-control-request-method");
    if (exchange.method !== "OPTIONS" || origin === null || method === null) return false;
    const isMethodAllowed = this.#methods.includes("*") || this.#methods.includes(method);
    if (!this.allows(origin) || !isMethodAllowed) {
      const what = isMethodAllowed
        ? `Pages of ${origin.slice(0, 100)} (--allowed-origins)`
        : `The method ${method.slice(0, 20)} (--allowed-methods)`;
      throw new HttpError(STATUS_CODE.BadRequest, `${what} may not be used from a browser here.`, {
        code: "cors",
      });
    }
    const asked = exchange.header("access-control-request-headers");
    const headers = this.#headers.includes("*") ? asked : this.#headers.join(", ");
    exchange.setHeader(
      "access-control-allow-methods",
      this.#methods.includes("*") ? method : this.#methods.join(", "),
    );
    if (headers) exchange.setHeader("access-control-allow-headers", headers);
    exchange.setHeader("access-control-max-age", String(MAX_AGE_SECONDS));
    exchange.send(STATUS_CODE.NoContent, "text/plain", "");
    return true;
  }
}

function strings(
  name: string,
  text: string | null,
  otherwise: readonly string[],
): readonly string[] {
  if (text === null) return otherwise;
  const value: unknown = JSON.parse(text);
  const isList = Array.isArray(value) && value.every((it) => typeof it === "string");
  if (isList) return value;
  throw new UsageError(`${name} ${text}: expected a JSON array of strings, such as '["*"]'`);
}
