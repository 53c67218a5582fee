/**
 * Llumnix's `/generate_benchmark`, which answers when all is done and says when each token came. TTFT and TPOT
 * are as the server measured them; the way to the server is part of the end-to-end latency only.
 */
import type { AnswerFacts, OnTokens } from "../open_loop.ts";
import type { AnswerReader, Backend } from "./backend.ts";

/** Longest answer that is accepted. */
const MAX_BODY_CHARS = 256 << 20;

export const generateBenchmark: Backend = {
  name: "llumnix",
  endpoint: "/generate_benchmark",
  body: ({ prompt, outputTokens, priority }, { ignoreEos, extraBody }) => ({
    prompt,
    n: 1,
    temperature: 0,
    max_tokens: outputTokens,
    ignore_eos: ignoreEos,
    stream: false,
    ...(priority === "high" ? { priority } : {}),
    ...extraBody,
  }),
  read: (onTokens, sentMs) => new TimedAnswer(onTokens, sentMs),
};

class TimedAnswer implements AnswerReader {
  readonly #decoder = new TextDecoder();
  #text = "";

  constructor(private readonly onTokens: OnTokens, private readonly sentMs: number) {}

  push(bytes: Uint8Array): void {
    this.#text += this.#decoder.decode(bytes, { stream: true });
    if (this.#text.length > MAX_BODY_CHARS) throw new Error("the answer is too long");
  }

  end(): AnswerFacts {
    const { per_token_latency: latencies, generated_text: text } = parse(this.#text);
    if (!Array.isArray(latencies)) throw new Error("the answer has no per_token_latency");
    let atMs = this.sentMs;
    for (const [, latencyMs] of latencies) this.onTokens(1, atMs += latencyMs);
    return { text: text ?? "", outputTokens: latencies.length };
  }
}

function parse(text: string): {
  readonly per_token_latency?: readonly (readonly [unixSeconds: number, ms: number])[];
  readonly generated_text?: string;
} {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`the answer is not JSON: ${text.slice(0, 100)}`);
  }
}
