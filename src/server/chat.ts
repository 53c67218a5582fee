/** `POST /v1/chat/completions` of OpenAI's API with vLLM's extensions. */
import { STATUS_CODE } from "@std/http/status";
import * as z from "zod";
import { RequestError } from "../core/errors.ts";
import type { TextRequest } from "../frontend/service.ts";
import { parseMessages } from "./chat_messages.ts";
import { type CollectedOutput, collectOutput } from "./collected_output.ts";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { Generation } from "./generation.ts";
import { type JsonObject, readGenerationBody } from "./json_body.ts";
import { chatLogprob, logprobsById } from "./logprobs.ts";
import { servedName } from "./model_name.ts";
import { requestedPriority } from "./priority.ts";
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

export const chatSchema = z.object({
  ...samplingFields,
  max_completion_tokens: anInteger.min(1, "at least 1").nullish(),
  n: sequencesField,
  logprobs: trueOrFalse.nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown(), "an object").nullish(),
  top_logprobs: anInteger.nullish(),
  echo: trueOrFalse.nullish(),
  add_generation_prompt: trueOrFalse.nullish(),
  detokenize: z.literal(true, "true, for a chat is text").nullish(),
  stream_options: streamOptionsField,
  resumable: resumableField,
});
const known = knownFields(chatSchema, ["model", "messages"]);

/** Most alternatives per token in OpenAI's API; `--max-logprobs` may allow more. */
const MAX_TOP_LOGPROBS = 20;

interface ChatTask {
  /** One for each of the `n` answers. */
  readonly requests: readonly TextRequest[];
  readonly stream: boolean;
  readonly resumable: ResumableStream | null;
  readonly includeUsage: boolean;
  /** Every chunk has the usage so far. */
  readonly continuousUsage: boolean;
  /** Alternatives per token; null for no log probabilities. */
  readonly topLogprobs: number | null;
  readonly withPromptLogprobs: boolean;
  readonly role: string;
  /** Text before the answer, by vLLM's `echo`: the last message, if it has the same role. */
  readonly echoed: string;
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

export async function chatCompletions(exchange: Exchange, context: ServerContext): Promise<void> {
  const body = await readGenerationBody(exchange, context);
  const task = parseTask(body, exchange, context);
  const generation = await Generation.start(context, exchange, task.requests)
    .catch((error) => Promise.reject(task.resumable?.explain(error) ?? error));
  if (task.stream) await streamChat(exchange, generation, task);
  else exchange.sendJson(STATUS_CODE.OK, await wholeChat(generation, task));
}

function parseTask(body: JsonObject, exchange: Exchange, context: ServerContext): ChatTask {
  const model = servedName(body.model, context.service.model);
  refuseUnsupportedFields(body);
  context.checkFields(body, known);
  const fields = validate(chatSchema, body);
  const messages = parseMessages(body.messages, context.checkFields);
  checkStreamOptions(fields, context.checkFields);
  if (fields.top_logprobs && !fields.logprobs) {
    throw new RequestError('top_logprobs needs "logprobs": true.', "top_logprobs");
  }
  const output = fields.logprobs ? fields.top_logprobs ?? 0 : null;
  const maxTokens = fields.max_completion_tokens ?? fields.max_tokens ?? null;
  const addGenerationPrompt = fields.add_generation_prompt ?? true;
  const last = messages[messages.length - 1];
  const role = addGenerationPrompt ? context.options.responseRole : last.role;
  const resumable = resumableStream(exchange, context, fields, "chatcmpl", fields.n ?? 1);
  const id = resumable?.requestId ?? `chatcmpl-${exchange.requestId}`;
  const prompt = {
    messages,
    addGenerationPrompt,
    ...(fields.chat_template_kwargs && { templateArguments: fields.chat_template_kwargs }),
  };
  const logprobs = { output, prompt: fields.prompt_logprobs ?? null };
  const sampling = toSampling(fields, maxTokens, logprobs);
  const priority = requestedPriority(exchange, fields.priority);
  const text = toTextParams(fields);
  context.admission.checkCount(fields.n ?? 1);
  return {
    requests: withSequences(fields.n ?? 1, () => ({
      requestId: newTextRequestId(id),
      prompt,
      sampling,
      text,
      badWords: fields.bad_words ?? undefined,
      maxLogprobs: MAX_TOP_LOGPROBS,
      priority,
      refuseOverlong: true,
      ...resumable?.fields,
    })),
    stream: fields.stream ?? false,
    resumable,
    includeUsage: fields.stream_options?.include_usage ?? false,
    continuousUsage: hasContinuousUsage(fields),
    topLogprobs: output,
    withPromptLogprobs: logprobs.prompt !== null,
    role,
    echoed: fields.echo && last.role === role ? last.content : "",
    id,
    created: resumable?.createdSeconds ?? Math.floor(Date.now() / 1000),
    model,
  };
}

async function wholeChat(generation: Generation, task: ChatTask) {
  const outputs = await collectOutput(generation);
  const outputTokens = outputs.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  return {
    id: task.id,
    object: "chat.completion",
    created: task.created,
    model: task.model,
    choices: outputs.map((output, index) => choice(output, index, task)),
    usage: usageOf(promptTokensOf(generation), outputTokens),
    ...(task.withPromptLogprobs
      ? { prompt_logprobs: logprobsById(outputs[0].promptLogprobs ?? []) }
      : {}),
  };
}

function choice(output: CollectedOutput, index: number, { topLogprobs, role, echoed }: ChatTask) {
  return {
    index,
    message: { role, content: echoed + output.text },
    logprobs: topLogprobs === null
      ? null
      : { content: output.logprobs.map((entry) => chatLogprob(entry, topLogprobs)) },
    finish_reason: output.finish.reason,
    stop_reason: output.finish.stopReason,
  };
}

/** All answers have the same prompt, which counts once. */
function promptTokensOf(generation: Generation): number {
  return generation.handles[0].promptTokenIds.length;
}

function streamChat(exchange: Exchange, generation: Generation, task: ChatTask): Promise<void> {
  const { topLogprobs } = task;
  const head = JSON.stringify({
    id: task.id,
    object: "chat.completion.chunk",
    created: task.created,
    model: task.model,
  }).slice(0, -1);
  const counter = new UsageCounter(task, () => promptTokensOf(generation));
  // There is a chunk for every token, so everything but its text is made in advance.
  const starts = generation.requests.map((_, index) =>
    `data: ${head},"choices":[{"index":${index},"delta":`
  );
  const plainEnd = `},"logprobs":null,"finish_reason":null`;
  const opening = JSON.stringify({ role: task.role, content: task.echoed }) + plainEnd.slice(1);
  const begun = generation.requests.map(() => false);

  return streamOutput(exchange, generation, {
    ...serverSentEvents,
    resumable: task.resumable,
    events(index, output) {
      const start = starts[index];
      const before = begun[index] ? "" : start + opening + counter.end();
      begun[index] = true;
      counter.add(output.tokenIds.length);
      const end = counter.end();
      if (output.finish === undefined && topLogprobs === null) {
        if (output.text === "") return before;
        return `${before}${start}{"content":${JSON.stringify(output.text)}${plainEnd}${end}`;
      }
      const logprobs = topLogprobs === null
        ? null
        : { content: (output.logprobs ?? []).map((entry) => chatLogprob(entry, topLogprobs)) };
      const delta = output.text === "" ? "{}" : `{"content":${JSON.stringify(output.text)}}`;
      const finish = output.finish === undefined
        ? '"finish_reason":null'
        : `"finish_reason":"${output.finish.reason}"` +
          `,"stop_reason":${JSON.stringify(output.finish.stopReason)}`;
      return `${before}${start}${delta},"logprobs":${JSON.stringify(logprobs)},${finish}${end}`;
    },
    closing: () => counter.closing(head),
  });
}
