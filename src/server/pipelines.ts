/** What connections bring beside requests that are read: requests without end, and chunks of nothing. */
import type { Buffer } from "node:buffer";
import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";

/** Bytes that the parser takes at once of data that has the heads of many requests: of about 25 at most. */
const SLICE_BYTES = 1024;
const CR = 0x0d;

/** Of Buffers, `indexOf` is a loop in JavaScript in Deno 2.9. */
const { indexOf } = Uint8Array.prototype;

/**
 * Bytes of a chunked body that are not its content: lengths and extensions of chunks, and trailers. The parser
 * takes an extension without an end. Beyond this many, there may be so many to each byte of content.
 */
const FRAMING_BYTES = 64 * 1024;
const FRAMING_PER_BYTE = 16;

/** What the HTTP library keeps at a socket. It reads by itself, past the socket's stream, while `_consumed`. */
interface ParsedSocket extends Socket {
  readonly parser?: { _consumed: boolean; unconsume(): void } | null;
}

interface Pipeline {
  /** Requests whose answers have not been sent. */
  waiting: number;
  isChunked: boolean;
  /** Bytes since the head of the last request, and those of them that are content of its body. */
  bytes: number;
  contentBytes: number;
}

/** Why a connection is closed. */
export type PipelineProblem = "too many requests" | "too much framing";

/** Bounds what clients send on a connection without waiting for answers (pipelining), or beside content. */
export class Pipelines {
  readonly #pipelines = new WeakMap<Socket, Pipeline>();

  /** @param onProblem closes the connection */
  constructor(
    private readonly maxWaiting: number,
    private readonly onProblem: (socket: Socket, problem: PipelineProblem) => void,
  ) {}

  /**
   * Looks at all that a server's clients send, and has many requests that come at once parsed in slices. The
   * parser hands over all requests of what it is given, 1,500 of 64 KiB, even if the first of them has the
   * connection closed.
   */
  watch(server: Server): void {
    const isSecure = "setSecureContext" in server;
    server.on(isSecure ? "secureConnection" : "connection", (socket: ParsedSocket) => {
      const [parse] = socket.listeners("data") as ((data: Buffer) => void)[];
      if (parse === undefined) return;
      if (socket.parser?._consumed) {
        socket.parser.unconsume();
        socket.parser._consumed = false;
      }
      const pipeline = { waiting: 0, isChunked: false, bytes: 0, contentBytes: 0 };
      this.#pipelines.set(socket, pipeline);
      socket.off("data", parse);
      socket.on("data", (data: Buffer) => {
        const bytes = this.#hasManyHeads(data) ? SLICE_BYTES : data.length;
        for (let at = 0; at < data.length && !socket.destroyed; at += bytes) {
          pipeline.bytes += Math.min(bytes, data.length - at);
          parse(data.subarray(at, at + bytes));
        }
        if (hasTooMuchFraming(pipeline)) this.onProblem(socket, "too much framing");
      });
    });
  }

  /** A request has come. @returns false if there are too many already: the connection is closed */
  enter(request: IncomingMessage): boolean {
    const { socket } = request;
    const pipeline = this.#pipelines.get(socket);
    if (socket.destroyed || pipeline === undefined) return false;
    if (pipeline.waiting >= this.maxWaiting) {
      this.onProblem(socket, "too many requests");
      return false;
    }
    pipeline.waiting++;
    pipeline.bytes = pipeline.contentBytes = 0;
    pipeline.isChunked = request.headers["transfer-encoding"] !== undefined;
    if (pipeline.isChunked) countContent(request, pipeline);
    return true;
  }

  /** The answer of a request that entered was sent, or will never be. */
  leave(socket: Socket): void {
    const pipeline = this.#pipelines.get(socket);
    if (pipeline !== undefined) pipeline.waiting--;
  }

  /** A body may have such bytes too: parsing it in slices does no harm. */
  #hasManyHeads(data: Buffer): boolean {
    let heads = 0;
    for (let at = indexOf.call(data, CR); at >= 0; at = indexOf.call(data, CR, at + 1)) {
      // The end of a line, and an empty line.
      if (data[at + 2] === CR && ++heads > this.maxWaiting) return true;
    }
    return false;
  }
}

/** The parser pushes the content of a body into the request's stream. */
function countContent(request: IncomingMessage, pipeline: Pipeline): void {
  const { push } = request;
  request.push = (chunk: Uint8Array | null, ...rest) => {
    pipeline.contentBytes += chunk?.length ?? 0;
    return push.call(request, chunk, ...rest);
  };
}

function hasTooMuchFraming({ isChunked, bytes, contentBytes }: Pipeline): boolean {
  return isChunked && bytes - contentBytes > FRAMING_BYTES + FRAMING_PER_BYTE * contentBytes;
}
