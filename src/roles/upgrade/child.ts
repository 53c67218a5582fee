/** Programs that this process has started: their output and their end. */

/** A text of unknown length of which the end is kept. */
export interface EndOfText {
  /** Resolves at the end of the stream, or when reading is stopped, with the last characters. */
  readonly whole: Promise<string>;
  stop(): void;
}

/** Reads a program's output. */
export function endOfText(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  maxChars: number,
): EndOfText {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  const read = async () => {
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return text;
      text = (text + value).slice(-maxChars);
    }
  };
  return { whole: read(), stop: () => void reader.cancel().catch(() => {}) };
}

/** Does nothing to a program that has ended. */
export function signalIfRunning(child: Deno.ChildProcess, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    child.kill(signal);
  } catch (error) {
    if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
  }
}
