/** OpenAI's count of tokens. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly total_tokens: number;
  readonly completion_tokens: number;
}

export function usageOf(promptTokens: number, completionTokens: number): Usage {
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
  };
}

/** Writes the usage into the chunks of a stream, as `stream_options` ask for it. */
export class UsageCounter {
  #outputTokens = 0;
  readonly #plainEnd: string;

  constructor(
    private readonly wanted: {
      readonly includeUsage: boolean;
      readonly continuousUsage: boolean;
    },
    private readonly promptTokens: () => number,
  ) {
    this.#plainEnd = wanted.includeUsage ? '}],"usage":null}\n\n' : "}]}\n\n";
  }

  add(outputTokens: number): void {
    this.#outputTokens += outputTokens;
  }

  /** What follows the last field of a chunk's only choice. */
  end(): string {
    if (!this.wanted.continuousUsage) return this.#plainEnd;
    return `}],"usage":${this.#usage()}}\n\n`;
  }

  /** The events behind the last output. */
  closing(head: string): string {
    const done = "data: [DONE]\n\n";
    if (!this.wanted.includeUsage) return done;
    return `data: ${head},"choices":[],"usage":${this.#usage()}}\n\n${done}`;
  }

  #usage(): string {
    return JSON.stringify(usageOf(this.promptTokens(), this.#outputTokens));
  }
}
