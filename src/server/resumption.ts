/**
 * Streams that their client can resume over another connection, at this API server or another one.
 *
 * The id of such a stream is a secret of its client: 192 random bits. The cluster knows the request by a
 * digest of that id, the API key and the body, so that a request is found only by the client that
 * started it, and no server has to remember or compare secrets.
 */
import { STATUS_CODE } from "@std/http/status";
import { createHash, randomBytes } from "node:crypto";
import { LlumnixError, RequestError } from "../core/errors.ts";
import type { TextOutput, TextRequest } from "../frontend/service.ts";
import { bearerToken } from "./access.ts";
import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { trueOrFalse } from "./validation.ts";

/** The field by which a client asks for a stream that it can resume. */
export const resumableField = trueOrFalse.nullish();

/** The header of the answer that names the stream. */
export const RESUME_ID_HEADER = "x-resume-id";

const RANDOM_BYTES = 24;
/** When the stream began in base 36, 32 random characters, and how far the client has come. */
const EVENT_ID = /^(([0-9a-z]{1,8})\.[\w-]{32})(?:\/(\d{1,9}))?$/;

interface StreamFields {
  readonly resumable?: boolean | null;
  readonly stream?: boolean | null;
}

/**
 * The stream that the client asks for, or goes on with (header `Last-Event-ID`); null if it is to be an
 * ordinary one.
 * @param prefix of the request's id, such as "cmpl"
 * @param sequences that the request asks for
 * @throws {RequestError} such a request cannot be resumed, or the header is no id of an event
 */
export function resumableStream(
  exchange: Exchange,
  { options }: ServerContext,
  fields: StreamFields,
  prefix: string,
  sequences: number,
): ResumableStream | null {
  if (!fields.resumable) return null;
  const wrong = (message: string) => new RequestError(message, "resumable");
  if (options.resumeHold === 0) {
    throw wrong("resumable is off: the server was started with --resume-hold 0.");
  }
  if (!fields.stream) {
    throw wrong('resumable needs "stream": true; send any other request again if it fails.');
  }
  if (sequences !== 1) {
    throw wrong(`resumable takes one prompt and "n": 1, got ${sequences} sequences.`);
  }
  const id = exchange.header("last-event-id");
  const match = EVENT_ID.exec(id ?? newStreamId());
  if (match === null) {
    throw new RequestError(
      "The header Last-Event-ID is not an id of this server's events. Send the id of the last event " +
        `that came, or the header ${RESUME_ID_HEADER} of the answer if none came.`,
    );
  }
  const [, streamId, created, position = "0"] = match;
  return new ResumableStream(
    streamId,
    `${prefix}-${digestOf(exchange, streamId)}`,
    parseInt(created, 36),
    id === null ? null : Number(position),
    options.resumeHold * 1000,
  );
}

/** A stream whose events tell how far its client has come. */
export class ResumableStream {
  /** Tokens of the events so far; one more when the events have the finish. */
  #position = 0;

  /**
   * @param streamId known to the client alone
   * @param requestId by which clients' chunks and the cluster name the request
   * @param createdSeconds since the epoch
   * @param resumeAfter position of the last event that the client has; null: the stream is new
   */
  constructor(
    readonly streamId: string,
    readonly requestId: string,
    readonly createdSeconds: number,
    readonly resumeAfter: number | null,
    private readonly holdMs: number,
  ) {}

  /** What the text service has to know of it. */
  get fields(): Pick<TextRequest, "requestId" | "holdMs" | "resumeAfter"> {
    const { requestId, holdMs, resumeAfter } = this;
    return { requestId, holdMs, ...(resumeAfter !== null && { resumeAfter }) };
  }

  /**
   * Gives the last of an output's events its id.
   * @returns "" if the client has the output already
   */
  mark(events: string, { tokenIds, finish, isRepeated }: TextOutput): string {
    this.#position += tokenIds.length + (finish === undefined ? 0 : 1);
    if (isRepeated || events === "") return "";
    return `${events.slice(0, -1)}id: ${this.streamId}/${this.#position}\n\n`;
  }

  /** Explains to the client that the stream cannot go on. */
  explain(error: unknown): unknown {
    if (!(error instanceof LlumnixError) || error.kind !== "not_found") return error;
    return new HttpError(
      STATUS_CODE.NotFound,
      "The stream of this Last-Event-ID cannot be resumed. It is kept for " +
        `${this.holdMs / 1000} s (--resume-hold) after its end or its connection's, unless its ` +
        "instance is lost, and only for the API key and the body that it was started with. Send the " +
        "request again without Last-Event-ID.",
      { code: "stream_not_held" },
    );
  }
}

function newStreamId(): string {
  const created = Math.floor(Date.now() / 1000).toString(36);
  return `${created}.${randomBytes(RANDOM_BYTES).toString("base64url")}`;
}

/** 128 bits that stand for the stream, its client and what it asked for. */
function digestOf(exchange: Exchange, streamId: string): string {
  const parts = [streamId, bearerToken(exchange), exchange.path, exchange.bodyDigest];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}
