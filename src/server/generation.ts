import { type ErrorRecord, fromErrorRecord } from "../core/errors.ts";
import type { Prompt, TextHandle, TextOutput, TextRequest } from "../frontend/service.ts";
import type { RequestMeasurement } from "../metrics/request_meter.ts";
import type { RequestOrigin } from "../metrics/request_record.ts";
import type { ServerContext } from "./context.ts";
import { ClientLeftError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";

/**
 * Characters or token ids of a prompt that `--log-prompts` logs without `--max-log-len`. vLLM logs all,
 * which costs more than serving where prompts are long.
 */
const DEFAULT_LOG_LEN = 2048;

/** What a request costs beside its prompt, in characters that take as long to encode. */
const REQUEST_COST = 64;

const unexplained: ErrorRecord = {
  kind: "internal",
  message: "The request failed in its instance.",
};

/** Receives the output of the prompt with this index; must not throw. */
export type GenerationSink = (index: number, output: TextOutput) => void;

/**
 * The prompts of one HTTP request while they are in work. The service accepts all of them or none. They end
 * together: when the last one is finished, one fails, the client leaves, or the server stops. Prompts that
 * are unfinished then are aborted, exactly once.
 */
export class Generation {
  /** One per prompt, filled as they are accepted. */
  readonly handles: TextHandle[] = [];
  /** Number of prompts, from the first on, that were handed to the service. */
  #submitted = 0;
  readonly #finished: boolean[];
  #unfinished: number;
  #over = false;
  #sink: GenerationSink | null = null;
  /** Output that arrived before `run`. */
  #early: [index: number, output: TextOutput][] = [];
  readonly #done = Promise.withResolvers<void>();

  readonly #measurements: RequestMeasurement[] = [];

  private constructor(
    readonly context: ServerContext,
    readonly requests: readonly TextRequest[],
    private readonly origin: RequestOrigin,
  ) {
    this.#finished = requests.map(() => false);
    this.#unfinished = requests.length;
    this.#done.promise.catch(() => {}); // it may fail before `run` is there to see it
  }

  /**
   * Hands all prompts to the service.
   * @throws what {@linkcode Admission.enter} and {@linkcode TextService.submit} throw
   * @throws {ClientLeftError}
   */
  static async start(
    context: ServerContext,
    exchange: Exchange,
    requests: readonly TextRequest[],
  ): Promise<Generation> {
    const origin = originOf(exchange);
    try {
      context.admission.enter(requests.length);
    } catch (error) {
      for (const request of requests) context.meter.begin(request, origin).fail(error);
      throw error;
    }
    const generation = new Generation(context, requests, origin);
    context.generations.add(generation);
    exchange.onLeave(() => generation.fail(new ClientLeftError()));
    // If the client leaves or a prompt is refused, this ends while instances may still take other prompts.
    await Promise.race([generation.#submitAll(), generation.#done.promise]);
    if (generation.#over) await generation.#done.promise;
    return generation;
  }

  /**
   * Calls `sink` with all output from the first on; resolves after the last prompt's end.
   * @throws what ended the generation before that
   */
  run(sink: GenerationSink): Promise<void> {
    for (const [index, output] of this.#early) sink(index, output);
    this.#early = [];
    this.#sink = sink;
    return this.#done.promise;
  }

  /** Ends the generation with an error. Does nothing if it has ended. */
  fail(error: unknown): void {
    if (this.#end()) this.#done.reject(error);
  }

  async #submitAll(): Promise<void> {
    const submitted: Promise<void>[] = [];
    for (const [index, request] of this.requests.entries()) {
      await this.context.encoding.take(sizeOf(request));
      if (this.#over) return;
      submitted.push(this.#submit(request, index));
    }
    await Promise.all(submitted);
  }

  async #submit(request: TextRequest, index: number): Promise<void> {
    this.#submitted++;
    logRequest(this.context, request);
    const measurement = this.context.meter.begin(request, this.origin);
    this.#measurements[index] = measurement;
    try {
      const handle = await this.context.service.submit(
        request,
        (output) => this.#receive(index, output),
      );
      measurement.promptTokens = handle.promptTokenIds.length;
      this.handles[index] = handle;
    } catch (error) {
      measurement.fail(error);
      this.#finished[index] = true;
      this.fail(error);
    }
  }

  #receive(index: number, output: TextOutput): void {
    if (this.#over || this.#finished[index]) return;
    const { tokenIds, prefillMs, finish, isRepeated } = output;
    const measurement = this.#measurements[index];
    if (!isRepeated) measurement.output(tokenIds.length, prefillMs);
    if (finish) measurement.end(finish.reason, finish.error?.kind);
    if (output.finish?.reason === "error") {
      this.#finished[index] = true;
      return this.fail(fromErrorRecord(output.finish.error ?? unexplained));
    }
    if (this.#sink === null) this.#early.push([index, output]);
    else this.#sink(index, output);
    if (output.finish === undefined) return;
    this.#finished[index] = true;
    this.#unfinished--;
    if (this.#unfinished === 0 && this.#end()) this.#done.resolve();
  }

  /** True for the first caller. */
  #end(): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.context.generations.delete(this);
    this.context.admission.leave(this.requests.length);
    for (let index = 0; index < this.#submitted; index++) {
      if (this.#finished[index]) continue;
      this.context.service.abort(this.requests[index].requestId);
      this.#measurements[index].end("abort");
    }
    return true;
  }
}

function originOf(exchange: Exchange): RequestOrigin {
  return {
    traceparent: exchange.header("traceparent"),
    operation: exchange.path.includes("/chat/") ? "chat" : "text_completion",
  };
}

/**
 * What handing a request to the service costs: each of the `n` sequences of a prompt carries all of its sampling
 * parameters to its instance.
 */
function sizeOf({ prompt, sampling, badWords = [] }: TextRequest): number {
  const { logitBias, allowedTokenIds, stopTokenIds } = sampling;
  const ids = [logitBias, allowedTokenIds, stopTokenIds]
    .reduce((sum, list) => sum + (list?.length ?? 0), 0);
  // The tokens of a word come twice: at the beginning of the output and behind a space.
  const words = badWords.reduce((sum, word) => sum + 2 * word.length, 0);
  return REQUEST_COST + promptSize(prompt) + ids + words;
}

/** What encoding a prompt costs: its characters, or token ids. */
function promptSize(prompt: Prompt): number {
  if ("text" in prompt) return prompt.text.length;
  if ("tokenIds" in prompt) return prompt.tokenIds.length;
  return prompt.messages.reduce((sum, { content }) => sum + content.length, 0);
}

/**
 * vLLM's "Received request" line. It carries the length of the prompt, and with `--log-prompts` the
 * prompt, cut at `--max-log-len` characters or token ids.
 */
function logRequest({ options, log }: ServerContext, request: TextRequest) {
  if (options.disableLogRequests) return;
  const { requestId, prompt, sampling, priority } = request;
  const length = options.maxLogLen ?? DEFAULT_LOG_LEN;
  log.info("received request", () => ({
    id: requestId,
    ...promptLength(prompt),
    prompt: options.logPrompts ? showPrompt(prompt, length) : undefined,
    sampling,
    priority,
  }));
}

function promptLength(prompt: Prompt): Readonly<Record<string, number>> {
  if ("tokenIds" in prompt) return { promptTokens: prompt.tokenIds.length };
  const promptChars = promptSize(prompt);
  return "text" in prompt ? { promptChars } : { messages: prompt.messages.length, promptChars };
}

function showPrompt(prompt: Prompt, length: number): string {
  if ("text" in prompt) return prompt.text.slice(0, length);
  if ("tokenIds" in prompt) return `[${prompt.tokenIds.slice(0, length).join(", ")}]`;
  const parts: string[] = [];
  let size = 0;
  for (const { role, content } of prompt.messages) {
    if (size >= length) break;
    const part = JSON.stringify({ role, content: content.slice(0, length) });
    size += part.length;
    parts.push(part);
  }
  return `[${parts.join(", ")}]`.slice(0, length);
}
