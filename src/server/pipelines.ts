/** Clients that send requests without waiting for the answers to those before (pipelining). */
import type { Buffer } from "node:buffer";
import type { Server } from "node:http";
import type { Socket } from "node:net";

/** Bytes that the parser takes at once of data that has the heads of many requests: of about 25 at most. */
const SLICE_BYTES = 1024;
const END_OF_HEAD = "\r\n\r\n";

/** What the HTTP library keeps at a socket. It reads by itself, past the socket's stream, while `_consumed`. */
interface ParsedSocket extends Socket {
  readonly parser?: { _consumed: boolean; unconsume(): void } | null;
}

/** Counts the requests of each connection whose answers have not been sent. */
export class Pipelines {
  readonly #waiting = new WeakMap<Socket, number>();

  constructor(private readonly maxWaiting: number) {}

  /**
   * Has a server parse many requests that come at once in slices. The parser hands over all requests of
   * what it is given, 1,500 of 64 KiB, even if the first of them has the connection closed.
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
      socket.off("data", parse);
      socket.on("data", (data: Buffer) => {
        const bytes = this.#hasManyHeads(data) ? SLICE_BYTES : data.length;
        for (let at = 0; at < data.length && !socket.destroyed; at += bytes) {
          parse(data.subarray(at, at + bytes));
        }
      });
    });
  }

  /** A request has come. @returns false if there are too many already: it does not count */
  enter(socket: Socket): boolean {
    const waiting = this.#waiting.get(socket) ?? 0;
    if (waiting >= this.maxWaiting || socket.destroyed) return false;
    this.#waiting.set(socket, waiting + 1);
    return true;
  }

  /** The answer of a request that counted was sent, or will never be. */
  leave(socket: Socket): void {
    this.#waiting.set(socket, (this.#waiting.get(socket) ?? 0) - 1);
  }

  /** A body may have such bytes too: parsing it in slices does no harm. */
  #hasManyHeads(data: Buffer): boolean {
    let at = -1;
    for (let heads = 0; heads <= this.maxWaiting; heads++) {
      at = data.indexOf(END_OF_HEAD, at + 1);
      if (at < 0) return false;
    }
    return true;
  }
}
