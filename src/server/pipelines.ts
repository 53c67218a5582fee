import type { Socket } from "node:net";

/** Counts the requests of each connection whose answers have not been sent. */
export class Pipelines {
  readonly #waiting = new WeakMap<Socket, number>();

  constructor(private readonly maxWaiting: number) {}

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
}
