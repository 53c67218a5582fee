/** What {@linkcode BodyReader.read} has filled. */
export interface Filled {
  /** With the bytes: reading moves a buffer to another object. */
  readonly buffer: ArrayBuffer;
  /** Fewer than asked for at the end of the body. */
  readonly bytes: number;
}

/** Reads the body of a request straight into buffers. */
export class BodyReader {
  readonly #reader: ReadableStreamBYOBReader | ReadableStreamDefaultReader<Uint8Array>;
  /** The rest of a chunk of a body without BYOB reads. */
  #chunk: Uint8Array = new Uint8Array(0);

  /** @param hasLength whether the head names the length of the body */
  constructor(body: ReadableStream<Uint8Array>, hasLength: boolean) {
    this.#reader = readerOf(body, hasLength);
  }

  /** Fills the first `bytes` bytes of a buffer, which the caller must not use any more. */
  async read(buffer: ArrayBuffer, bytes: number): Promise<Filled> {
    let filled = 0;
    while (filled < bytes) {
      if (this.#reader instanceof ReadableStreamBYOBReader) {
        const view = new Uint8Array(buffer, filled, bytes - filled);
        const { value, done } = await this.#reader.read(view);
        if (value === undefined) return { buffer: new ArrayBuffer(0), bytes: 0 }; // cancelled
        buffer = value.buffer as ArrayBuffer;
        if (done) break;
        filled += value.length;
      } else {
        if (this.#chunk.length === 0) {
          const { value, done } = await this.#reader.read();
          if (done) break;
          this.#chunk = value;
        }
        const part = this.#chunk.subarray(0, bytes - filled);
        new Uint8Array(buffer).set(part, filled);
        filled += part.length;
        this.#chunk = this.#chunk.subarray(part.length);
      }
    }
    return { buffer, bytes: filled };
  }

  /** Ends a read that is under way, and those that follow. */
  cancel(): void {
    this.#reader.cancel().catch(() => {});
  }
}

/**
 * A body of unknown length is read in chunks: in Deno 2.9.6 a BYOB read of it fills seven bytes fewer than
 * the view has, and waits for ever if the view has no more. Deno has read a short body with the head
 * already, and gives it as a stream without BYOB reads.
 */
function readerOf(body: ReadableStream<Uint8Array>, hasLength: boolean) {
  if (!hasLength) return body.getReader();
  try {
    return body.getReader({ mode: "byob" });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return body.getReader();
  }
}
