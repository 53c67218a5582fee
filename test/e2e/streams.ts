/** Streamed completions of real clients, with all that tells one token from another. */
import assert from "node:assert/strict";
import OpenAI from "openai";

/** A text completion as a client asks for it. */
export interface CompletionBody {
  readonly prompt: string;
  readonly max_tokens: number;
  readonly temperature: number;
  readonly seed?: number;
  readonly logprobs?: number;
  readonly ignore_eos: boolean;
  /** False: token ids in place of text. */
  readonly detokenize?: boolean;
}

export interface StreamRequest {
  readonly client: "openai" | "curl";
  readonly body: CompletionBody;
}

/** What a stream brought. Two runs with the same values had the same tokens. */
export interface StreamResult {
  readonly text: string;
  /** Where they were asked for. */
  readonly tokenIds: readonly number[];
  /** Of the tokens, where they were asked for: bit by bit the same for the same token. */
  readonly logprobs: readonly (number | null)[];
  readonly finishReason: string | null;
}

export interface StreamOptions {
  /** Told of each event that brought something. */
  readonly onEvent?: () => void;
  /** Makes the client leave. */
  readonly signal?: AbortSignal;
}

interface Chunk {
  readonly choices: readonly {
    readonly text: string;
    readonly token_ids?: readonly number[];
    readonly logprobs?: { readonly token_logprobs?: (number | null)[] | null } | null;
    readonly finish_reason: string | null;
  }[];
}

/** Different requests: greedy and seeded, for text with log probabilities and for token ids. */
export function variedRequests(count: number, maxTokens: number): StreamRequest[] {
  return Array.from({ length: count }, (_, i) => ({
    client: i % 2 === 0 ? "openai" : "curl",
    body: {
      prompt: `request ${i} `.repeat(1 + i % 7 * 5),
      max_tokens: maxTokens - i % 5 * Math.floor(maxTokens / 10),
      ...(i % 4 < 2 ? { temperature: 0 } : { temperature: 1, seed: i }),
      ...(i % 3 === 0 ? { detokenize: false } : { logprobs: i % 3 }),
      ignore_eos: true,
    },
  }));
}

/**
 * Runs a stream to its end.
 * @throws {Error} it broke off, or the server answered with an error
 */
export async function runStream(
  url: string,
  { client, body }: StreamRequest,
  options: StreamOptions = {},
): Promise<StreamResult> {
  const chunks = client === "openai"
    ? openaiChunks(url, body, options.signal)
    : curlChunks(url, body, options.signal);
  let text = "", finishReason: string | null = null;
  const tokenIds: number[] = [], logprobs: (number | null)[] = [];
  for await (const chunk of chunks) {
    if (chunk.choices === undefined) throw new Error(`the server sent ${JSON.stringify(chunk)}`);
    const [choice] = chunk.choices;
    assert.equal(finishReason, null, "nothing comes behind the finish");
    text += choice.text;
    finishReason = choice.finish_reason;
    tokenIds.push(...choice.token_ids ?? []);
    logprobs.push(...choice.logprobs?.token_logprobs ?? []);
    options.onEvent?.();
  }
  assert.notEqual(finishReason, null, "the stream broke off");
  const tokens = tokenIds.length + logprobs.length;
  assert.ok(tokens > 0, "every request tells its tokens apart");
  return { text, tokenIds, logprobs, finishReason };
}

async function* openaiChunks(
  url: string,
  body: CompletionBody,
  signal?: AbortSignal,
): AsyncGenerator<Chunk> {
  // No connection is kept for later requests, so that a test can count the server's.
  using connections = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  const client = new OpenAI({
    ...{ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 },
    fetch: (input, init) => fetch(input, { ...init, client: connections }),
  });
  const request = { model: "llumnix-tiny", stream: true, ...body } as const;
  yield* await client.completions.create(request, { signal });
}

async function* curlChunks(
  url: string,
  body: CompletionBody,
  signal?: AbortSignal,
): AsyncGenerator<Chunk> {
  const args = ["--silent", "--show-error", "--no-buffer", "--fail-with-body"];
  args.push("--header", "content-type: application/json");
  args.push("--data", JSON.stringify({ stream: true, ...body }), `${url}/v1/completions`);
  const child = new Deno.Command("curl", { args, signal, stdout: "piped", stderr: "piped" })
    .spawn();
  const complaint = new Response(child.stderr).text();
  let last = "";
  for await (const event of eventData(child.stdout)) {
    last = event;
    if (event !== "[DONE]") yield JSON.parse(event);
  }
  const { code } = await child.status;
  assert.deepEqual([code, last], [0, "[DONE]"], await complaint);
}

/** Data of server-sent events, as they come; lines that are none are taken as data too. */
export async function* eventData(
  bytes: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<string> {
  let rest = "";
  for await (const text of bytes.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) if (line !== "") yield line.replace(/^data: /, "");
  }
  if (rest !== "") yield rest;
}
