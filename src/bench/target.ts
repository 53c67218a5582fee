/** A server under load: its address, its routes, and how a request is sent. */
import { Buffer } from "node:buffer";
import type { Clock } from "../core/clock.ts";
import type { Backend, RequestSettings } from "./backends/backend.ts";
import { HttpClient } from "./http/http_client.ts";
import type { LoadRequest } from "./load_request.ts";
import type { Send } from "./open_loop.ts";

/** Bytes of an answer that are kept to show an error. */
const SHOWN_BYTES = 2000;

export interface TargetOptions {
  readonly baseUrl: URL;
  /** Sent with each request. */
  readonly headers: Readonly<Record<string, string>>;
  readonly clock: Clock;
}

/** One server. */
export class Target {
  readonly baseUrl: URL;
  readonly #client: HttpClient;
  readonly #options: TargetOptions;

  constructor(options: TargetOptions) {
    this.#options = options;
    this.baseUrl = options.baseUrl;
    this.#client = new HttpClient(options.baseUrl);
  }

  /** How requests are sent to a route. @param requestIdPrefix of the header `x-request-id` */
  sender(
    backend: Backend,
    endpoint: string,
    settings: RequestSettings,
    requestIdPrefix: string,
  ): Send<LoadRequest> {
    const { headers, clock } = this.#options;
    const path = this.#pathOf(endpoint);
    return async (request, onTokens, index) => {
      const body = JSON.stringify(backend.body(request, settings));
      const reader = backend.read(onTokens, clock.nowMs());
      const refusal: Buffer[] = [];
      const head = await this.#client.send(
        {
          method: "POST",
          path,
          headers: { "x-request-id": `${requestIdPrefix}${index}`, ...headers },
          body,
        },
        (bytes, { status }) => {
          if (status === 200) reader.push(bytes);
          else if (refusal.length < 16) refusal.push(Buffer.from(bytes.slice(0, SHOWN_BYTES)));
        },
      );
      if (head.status !== 200) throw refused(head.status, head.reason, refusal);
      return reader.end();
    };
  }

  /**
   * Asks a route for JSON.
   * @throws {Error} the server cannot be reached, or refuses
   */
  async json(method: "GET" | "POST", route: string, body?: unknown): Promise<unknown> {
    const pieces: Buffer[] = [];
    const head = await this.#client.send({
      method,
      path: this.#pathOf(route),
      headers: this.#options.headers,
      body: body === undefined ? null : JSON.stringify(body),
    }, (bytes) => pieces.push(Buffer.from(bytes)));
    if (head.status !== 200) throw refused(head.status, head.reason, pieces);
    return JSON.parse(Buffer.concat(pieces).toString());
  }

  /** Ends all requests that run. */
  close(): void {
    this.#client.close();
  }

  #pathOf(route: string): string {
    return `${this.baseUrl.pathname.replace(/\/+$/, "")}${route}`;
  }
}

/** "HTTP 429 Too Many Requests: the service is full" */
function refused(status: number, reason: string, body: readonly Buffer[]): Error {
  const text = Buffer.concat(body).toString().slice(0, SHOWN_BYTES);
  const message = messageOf(text);
  return new Error(`HTTP ${status} ${reason}${message === "" ? "" : `: ${message}`}`);
}

function messageOf(text: string): string {
  try {
    const { error, message, detail } = JSON.parse(text);
    const found = error?.message ?? message ?? detail ?? error;
    if (typeof found === "string") return found;
  } catch {
    // Not JSON: the text itself tells.
  }
  return text.trim().slice(0, 200);
}
