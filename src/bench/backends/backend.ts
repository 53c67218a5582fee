/** How a kind of server is asked, and how its answers are read. */
import type { AnswerFacts, OnTokens } from "../open_loop.ts";
import type { LoadRequest } from "../load_request.ts";

/** What all requests of a load have in common. */
export interface RequestSettings {
  /** Null for a server that does not want a model's name. */
  readonly model: string | null;
  readonly ignoreEos: boolean;
  readonly logprobs: number | null;
  /** Fields added to each body. They replace fields of the same name that the backend sets. */
  readonly extraBody: Readonly<Record<string, unknown>>;
}

/** Reads one answer. */
export interface AnswerReader {
  /**
   * Takes a piece of the body.
   * @throws {Error} the server reports a failure, or the answer cannot be understood
   */
  push(bytes: Uint8Array): void;
  /** Called when the answer is complete. @throws {Error} as `push` */
  end(): AnswerFacts;
}

export interface Backend {
  /** Value of `--backend`. */
  readonly name: string;
  /** Path of the route, if `--endpoint` does not say. */
  readonly endpoint: string;
  body(request: LoadRequest, settings: RequestSettings): Readonly<Record<string, unknown>>;
  /** @param sentMs when the request was sent */
  read(onTokens: OnTokens, sentMs: number): AnswerReader;
}
