/** `POST /v1/completions` of OpenAI's API with vLLM's extensions. */
import { STATUS_CODE } from "@std/http/status";
import * as z from "zod";
import { RequestError } from "../core/errors.ts";
import type { TextHandle, TextOutput, TextRequest } from "../frontend/service.ts";
import { codePoints } from "../frontend/token_logprobs.ts";
import { type CollectedOutput, collectOutput } from "./collected_output.ts";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { Generation } from "./generation.ts";
import { type JsonObject, readGenerationBody } from "./json_body.ts";
import { completionLogprobs, echoedTokens, logprobsById } from "./logprobs.ts";
import { servedName } from "./model_name.ts";
import { requestedPriority } from "./priority.ts";
import { parsePrompts } from "./prompts.ts";
import { refuseUnsupportedFields } from "./refused_fields.ts";
import { newTextRequestId } from "./request_ids.ts";
import { resumableField, type ResumableStream, resumableStream } from "./resumption.ts";
import {
  checkStreamOptions,
  hasContinuousUsage,
  samplingFields,
  sequencesField,
  streamOptionsField,
  toSampling,
  toTextParams,
  withSequences,
} from "./sampling_fields.ts";
import { serverSentEvents, streamOutput } from "./streamed_output.ts";
import { knownFields } from "./unknown_fields.ts";
import { UsageCounter, usageOf } from "./usage.ts";
import { anInteger, trueOrFalse, validate } from "./validation.ts";

export const completionSchema = z.object({
  ...samplingFields,
  n: sequencesField,
  logprobs: z.union([anInteger, z.literal(false)], "an integer").nullish(),
  echo: trueOrFalse.nullish(),
  detokenize: trueOrFalse.nullish(),
  stream_options: streamOptionsField,
  resumable: resumableField,
});
const known = knownFields(completionSchema, ["model", "prompt"]);

/** What a completion request asks for. */
interface CompletionTask {
  /** One for each choice: the `n` sequences of each prompt follow each other. */
  readonly requests: readonly TextRequest[];
  /** Of each prompt. */
  readonly sequences: number;
  readonly stream: boolean;
  readonly resumable: ResumableStream | null;
  readonly includeUsage: boolean;
  /** Every chunk has the usage so far. */
  readonly continuousUsage: boolean;
  readonly withLogprobs: boolean;
  readonly withPromptLogprobs: boolean;
  readonly echo: boolean;
  /** `echo` with `max_tokens` 0: the prompt is scored, nothing is generated. */
  readonly promptOnly: boolean;
  readonly withTokenIds: boolean;
  /** The fields that all chunks and the whole response begin with. */
  readonly head: {
    readonly id: string;
    readonly object: "text_completion";
    readonly created: number;
    readonly model: string;
  };
}

export async function completions(exchange: Exchange, context: ServerContext): Promise<void> {
  const body = await readGenerationBody(exchange, context);
  const task = parseTask(body, exchange, context);
  const generation = await Generation.start(context, exchange, task.requests)
    .catch((error) => Promise.reject(task.resumable?.explain(error) ?? error));
  if (task.stream) await streamCompletion(exchange, generation, task);
  else exchange.sendJson(STATUS_CODE.OK, await wholeCompletion(generation, task));
}

function parseTask(body: JsonObject, exchange: Exchange, context: ServerContext): CompletionTask {
  const { service } = context;
  const model = servedName(body.model, service.model);
  refuseUnsupportedFields(body);
  context.checkFields(body, known);
  const fields = validate(completionSchema, body);
  const prompts = parsePrompts(
    body.prompt,
    fields.add_special_tokens ?? undefined,
    context.options.maxQueuedRequests,
  );
  const echo = fields.echo ?? false;
  const maxTokens = fields.max_tokens ?? 16;
  const promptOnly = maxTokens === 0;
  if (promptOnly && !echo) {
    throw new RequestError(
      'max_tokens must be at least 1, got 0; 0 needs "echo": true.',
      "max_tokens",
    );
  }
  checkStreamOptions(fields, context.checkFields);
  const output = typeof fields.logprobs === "number" ? fields.logprobs : null;
  const prompt = fields.prompt_logprobs ?? (echo ? output : null);
  const sampling = toSampling(fields, promptOnly ? 1 : maxTokens, { output, prompt });
  const detokenize = service.model.hasTokenizer && (fields.detokenize ?? true);
  const text = toTextParams(fields, detokenize);
  const priority = requestedPriority(exchange, fields.priority);
  const sequences = fields.n ?? 1;
  const count = prompts.length * sequences;
  context.admission.checkCount(count);
  const resumable = resumableStream(exchange, context, fields, "cmpl", count);
  const id = resumable?.requestId ?? `cmpl-${exchange.requestId}`;
  return {
    requests: prompts.flatMap((prompt) =>
      withSequences(sequences, () => ({
        requestId: newTextRequestId(id),
        prompt,
        sampling,
        text,
        badWords: fields.bad_words ?? undefined,
        priority,
        refuseOverlong: true,
        ...resumable?.fields,
      }))
    ),
    sequences,
    stream: fields.stream ?? false,
    resumable,
    includeUsage: fields.stream_options?.include_usage ?? false,
    continuousUsage: hasContinuousUsage(fields),
    withLogprobs: output !== null,
    withPromptLogprobs: typeof fields.prompt_logprobs === "number",
    echo,
    promptOnly,
    withTokenIds: !detokenize,
    head: {
      id,
      object: "text_completion",
      created: resumable?.createdSeconds ?? Math.floor(Date.now() / 1000),
      model,
    },
  };
}

async function wholeCompletion(generation: Generation, task: CompletionTask) {
  const outputs = await collectOutput(generation);
  const promptTokens = promptTokensOf(generation, task);
  const outputTokens = task.promptOnly ? 0 : sum(outputs.map((it) => it.tokenIds.length));
  return {
    ...task.head,
    choices: outputs.map((output, index) => choice(generation, task, output, index)),
    usage: usageOf(promptTokens, outputTokens),
  };
}

/** A prompt counts once, however many sequences it has. */
function promptTokensOf(generation: Generation, { sequences }: CompletionTask): number {
  return sum(
    generation.handles.map(({ promptTokenIds }, i) =>
      i % sequences === 0 ? promptTokenIds.length : 0
    ),
  );
}

function choice(generation: Generation, task: CompletionTask, all: CollectedOutput, index: number) {
  const { promptText } = generation.handles[index];
  const output = task.promptOnly ? nothingAfter(all) : all;
  const echoed = task.echo ? promptText : "";
  return {
    index,
    text: echoed + output.text,
    logprobs: task.withLogprobs ? logprobsOf(generation.handles[index], task, output) : null,
    finish_reason: output.finish.reason,
    stop_reason: output.finish.stopReason,
    ...(task.withPromptLogprobs ? { prompt_logprobs: logprobsById(all.promptLogprobs ?? []) } : {}),
    ...(task.withTokenIds ? { token_ids: output.tokenIds } : {}),
  };
}

/** The output of a request that wanted none: one token had to be generated to score the prompt. */
function nothingAfter(output: CollectedOutput): CollectedOutput {
  const finish = { reason: "length" as const, stopReason: null };
  return { ...output, text: "", tokenIds: [], logprobs: [], finish };
}

function logprobsOf(
  handle: TextHandle,
  task: CompletionTask,
  output: Pick<TextOutput, "logprobs"> & { promptLogprobs?: TextOutput["promptLogprobs"] | null },
) {
  const prompt = task.echo ? echoedTokens(handle, output.promptLogprobs ?? []) : [];
  const offset = task.echo ? codePoints(handle.promptText) : 0;
  return completionLogprobs(prompt, output.logprobs ?? [], offset);
}

function streamCompletion(
  exchange: Exchange,
  generation: Generation,
  task: CompletionTask,
): Promise<void> {
  const head = JSON.stringify(task.head).slice(0, -1);
  const counter = new UsageCounter(task, () => promptTokensOf(generation, task));
  // There is a chunk for every token, so everything but its text is made in advance.
  const starts = generation.requests.map((_, index) =>
    `data: ${head},"choices":[{"index":${index},"text":`
  );
  const plainEnd = `,"logprobs":null,"finish_reason":null,"stop_reason":null`;
  const begun = generation.requests.map(() => false);

  return streamOutput(exchange, generation, {
    ...serverSentEvents,
    resumable: task.resumable,
    events(index, output) {
      if (!task.promptOnly) counter.add(output.tokenIds.length);
      const isFirst = !begun[index];
      begun[index] = true;
      const isPlain = output.finish === undefined && !task.withLogprobs && !task.withTokenIds;
      if (isPlain && !(isFirst && task.echo)) {
        if (output.text === "") return "";
        return starts[index] + JSON.stringify(output.text) + plainEnd + counter.end();
      }
      return starts[index] + fullChunk(index, output, isFirst);
    },
    closing: () => counter.closing(head),
  });

  function fullChunk(index: number, all: TextOutput, isFirst: boolean): string {
    const output = task.promptOnly ? { ...all, text: "", tokenIds: [], logprobs: [] } : all;
    const handle = generation.handles[index];
    const text = (isFirst && task.echo ? handle.promptText : "") + output.text;
    const logprobs = task.withLogprobs ? logprobsOf(handle, task, output) : null;
    const reason = output.finish?.reason ?? null;
    const tokenIds = task.withTokenIds ? `,"token_ids":${JSON.stringify(output.tokenIds)}` : "";
    return `${JSON.stringify(text)},"logprobs":${JSON.stringify(logprobs)}` +
      `,"finish_reason":${JSON.stringify(reason)}` +
      `,"stop_reason":${
        JSON.stringify(output.finish?.stopReason ?? null)
      }${tokenIds}${counter.end()}`;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
