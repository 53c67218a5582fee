/** Splits a stream of server-sent events into the data of its events. */

/** Longest event that is accepted, in characters. */
const MAX_EVENT_CHARS = 16 << 20;

export class EventStream {
  readonly #decoder = new TextDecoder();
  #rest = "";

  /**
   * The data of the events that end within these bytes. Comments are left out.
   * @throws {Error} an event is too long
   */
  push(bytes: Uint8Array): string[] {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    const found: string[] = [];
    let start = 0;
    for (;;) {
      const end = text.indexOf("\n", start);
      if (end < 0) break;
      // Each event of an LLM server is one line of data: nothing is gained by waiting for the empty line.
      const line = text.slice(start, text[end - 1] === "\r" ? end - 1 : end);
      if (line.startsWith("data:")) found.push(line.slice(line[5] === " " ? 6 : 5));
      start = end + 1;
    }
    this.#rest = text.slice(start);
    if (this.#rest.length > MAX_EVENT_CHARS) throw new Error("an event of the answer is too long");
    return found;
  }
}
