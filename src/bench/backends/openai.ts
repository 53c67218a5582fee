/** OpenAI's API: completions and chat completions, streamed. */
import { EventStream } from "../http/event_stream.ts";
import type { AnswerFacts, OnTokens } from "../open_loop.ts";
import type { LoadRequest } from "../load_request.ts";
import type { AnswerReader, Backend, RequestSettings } from "./backend.ts";

/** The part of an event that is read. */
interface StreamEvent {
  readonly choices?: readonly Choice[];
  readonly usage?: { readonly prompt_tokens?: number; readonly completion_tokens?: number } | null;
  readonly error?: { readonly message?: string } | string;
}

interface Choice {
  readonly text?: string | null;
  readonly delta?: {
    readonly role?: string;
    readonly content?: string | null;
    readonly reasoning?: string | null;
    readonly reasoning_content?: string | null;
    readonly tool_calls?: readonly unknown[];
  };
  readonly finish_reason?: string | null;
}

export const completions: Backend = {
  name: "openai",
  endpoint: "/v1/completions",
  body: ({ prompt, outputTokens, priority }, settings) => ({
    prompt,
    max_tokens: outputTokens,
    ...common(settings, priority),
    ...(settings.logprobs === null ? {} : { logprobs: settings.logprobs }),
    ...settings.extraBody,
  }),
  read: (onTokens) => new StreamedAnswer(onTokens),
};

export const chat: Backend = {
  name: "openai-chat",
  endpoint: "/v1/chat/completions",
  body: ({ prompt, outputTokens, priority }, settings) => ({
    messages: [{ role: "user", content: prompt }],
    max_completion_tokens: outputTokens,
    ...common(settings, priority),
    ...(settings.logprobs === null ? {} : { logprobs: true, top_logprobs: settings.logprobs }),
    ...settings.extraBody,
  }),
  read: (onTokens) => new StreamedAnswer(onTokens),
};

function common({ model, ignoreEos }: RequestSettings, priority: LoadRequest["priority"]) {
  return {
    ...(model === null ? {} : { model }),
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
    ...(ignoreEos ? { ignore_eos: true } : {}),
    // Servers without priorities need not know the field.
    ...(priority === "high" ? { priority } : {}),
  };
}

class StreamedAnswer implements AnswerReader {
  readonly #events = new EventStream();
  readonly #texts: string[] = [];
  #hasTokens = false;
  #promptTokens: number | undefined;
  #outputTokens: number | undefined;

  constructor(private readonly onTokens: OnTokens) {}

  push(bytes: Uint8Array): void {
    for (const data of this.#events.push(bytes)) {
      if (data === "[DONE]") continue;
      this.#take(parse(data));
    }
  }

  end(): AnswerFacts {
    return {
      text: this.#texts.join(""),
      ...(this.#promptTokens === undefined ? {} : { promptTokens: this.#promptTokens }),
      ...(this.#outputTokens === undefined ? {} : { outputTokens: this.#outputTokens }),
    };
  }

  #take({ choices, usage, error }: StreamEvent): void {
    if (error) throw new Error(typeof error === "string" ? error : error.message ?? "an error");
    const choice = choices?.[0];
    if (choice) {
      const text = textOf(choice);
      // An answer that only ends has a token too: its text was left out, or is a part of a letter.
      const isOnly = Boolean(choice.finish_reason) && !this.#hasTokens;
      if (text !== "" || isToken(choice) || isOnly) {
        this.#hasTokens = true;
        this.onTokens(1);
      }
      if (text !== "") this.#texts.push(text);
    }
    if (usage) {
      this.#promptTokens = usage.prompt_tokens ?? this.#promptTokens;
      this.#outputTokens = usage.completion_tokens ?? this.#outputTokens;
    }
  }
}

function textOf({ text, delta }: Choice): string {
  return text ?? delta?.content ?? delta?.reasoning ?? delta?.reasoning_content ?? "";
}

/**
 * Whether an event without text brings a token, such as a special one. The first event of a chat, which names
 * the role, and a last one, which only says why the answer ended, bring none.
 */
function isToken({ delta, finish_reason }: Choice): boolean {
  return (delta?.tool_calls?.length ?? 0) > 0 || delta?.role === undefined && !finish_reason;
}

function parse(data: string): StreamEvent {
  try {
    return JSON.parse(data);
  } catch {
    throw new Error(`an event of the answer is not JSON: ${data.slice(0, 100)}`);
  }
}
