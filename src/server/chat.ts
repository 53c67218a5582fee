/** `POST /v1/chat/completions` of OpenAI's API with vLLM's extensions. */
import { STATUS_CODE } from "@std/http/status";
import { z } from "zod";
import { RequestError } from "../core/errors.ts";
import type { TextRequest } from "../frontend/service.ts";
import { parseMessages } from "./chat_messages.ts";
import { collectOutput } from "./collected_output.ts";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { Generation } from "./generation.ts";
import { type JsonObject, readGenerationBody } from "./json_body.ts";
import { chatLogprob, logprobsById } from "./logprobs.ts";
import { servedName } from "./model_name.ts";
import { requestedPriority } from "./priority.ts";
import { refuseUnsupportedFields } from "./refused_fields.ts";
import { newTextRequestId } from "./request_ids.ts";
import {
  checkStreamOptions,
  samplingFields,
  streamOptionsField,
  toSampling,
  toTextParams,
} from "./sampling_fields.ts";
import { serverSentEvents, streamOutput } from "./streamed_output.ts";
import { knownFields, refuseUnknownFields } from "./unknown_fields.ts";
import { usage } from "./usage.ts";
import { anInteger, trueOrFalse, validate } from "./validation.ts";

const schema = z.object({
  ...samplingFields,
  max_completion_tokens: anInteger.nullish(),
  logprobs: trueOrFalse.nullish(),
  top_logprobs: anInteger.nullish(),
  echo: trueOrFalse.nullish(),
  add_generation_prompt: trueOrFalse.nullish(),
  detokenize: z.literal(true, "true, for a chat is text").nullish(),
  stream_options: streamOptionsField,
});
const known = knownFields(schema, ["model", "messages"]);

interface ChatTask {
  readonly request: TextRequest;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Alternatives per token; null for no log probabilities. */
  readonly topLogprobs: number | null;
  readonly withPromptLogprobs: boolean;
  readonly role: string;
  /** Text put before the answer by vLLM's `echo`: the last message, when it has the same role. */
  readonly echoed: string;
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

export async function chatCompletions(exchange: Exchange, context: ServerContext): Promise<void> {
  const body = await readGenerationBody(exchange, context);
  const task = parseTask(body, exchange, context);
  const generation = await Generation.start(context, exchange, [task.request]);
  if (task.stream) await streamChat(exchange, generation, task);
  else exchange.sendJson(STATUS_CODE.OK, await wholeChat(generation, task));
}

function parseTask(body: JsonObject, exchange: Exchange, context: ServerContext): ChatTask {
  const model = servedName(body.model, context.service.model);
  refuseUnsupportedFields(body);
  refuseUnknownFields(body, known);
  const fields = validate(schema, body);
  const messages = parseMessages(body.messages);
  checkStreamOptions(fields);
  if (typeof fields.top_logprobs === "number" && !fields.logprobs) {
    throw new RequestError('top_logprobs needs "logprobs": true.', "top_logprobs");
  }
  const output = fields.logprobs ? fields.top_logprobs ?? 0 : null;
  const prompt = fields.prompt_logprobs ?? null;
  const maxTokens = fields.max_completion_tokens ?? fields.max_tokens ?? null;
  const addGenerationPrompt = fields.add_generation_prompt ?? true;
  const last = messages[messages.length - 1];
  const role = addGenerationPrompt ? "assistant" : last.role;
  const id = `chatcmpl-${exchange.requestId}`;
  return {
    request: {
      requestId: newTextRequestId(id),
      prompt: { messages, addGenerationPrompt },
      sampling: toSampling(fields, maxTokens, { output, prompt }),
      text: toTextParams(fields),
      priority: requestedPriority(exchange, fields.priority),
      refuseOverlong: true,
    },
    stream: fields.stream ?? false,
    includeUsage: fields.stream_options?.include_usage ?? false,
    topLogprobs: output,
    withPromptLogprobs: prompt !== null,
    role,
    echoed: fields.echo && last.role === role ? last.content : "",
    id,
    created: Math.floor(Date.now() / 1000),
    model,
  };
}

async function wholeChat(generation: Generation, task: ChatTask) {
  const [output] = await collectOutput(generation);
  const { topLogprobs, role } = task;
  return {
    id: task.id,
    object: "chat.completion",
    created: task.created,
    model: task.model,
    choices: [{
      index: 0,
      message: { role, content: task.echoed + output.text },
      logprobs: topLogprobs === null
        ? null
        : { content: output.logprobs.map((entry) => chatLogprob(entry, topLogprobs)) },
      finish_reason: output.finish.reason,
      stop_reason: output.finish.stopReason,
    }],
    usage: usage(generation.handles[0].promptTokenIds.length, output.tokenIds.length),
    ...(task.withPromptLogprobs
      ? { prompt_logprobs: logprobsById(output.promptLogprobs ?? []) }
      : {}),
  };
}

function streamChat(exchange: Exchange, generation: Generation, task: ChatTask): Promise<void> {
  const { topLogprobs } = task;
  const head = JSON.stringify({
    id: task.id,
    object: "chat.completion.chunk",
    created: task.created,
    model: task.model,
  }).slice(0, -1);
  const usageField = task.includeUsage ? ',"usage":null' : "";
  const start = `data: ${head},"choices":[{"index":0,"delta":`;
  const end = `}]${usageField}}\n\n`;
  // One chunk per token is the hot path: all but the text is made once.
  const plainEnd = `},"logprobs":null,"finish_reason":null${end}`;
  const opening = start + JSON.stringify({ role: task.role, content: task.echoed }) +
    plainEnd.slice(1);
  let isFirst = true;
  let outputTokens = 0;

  return streamOutput(exchange, generation, {
    ...serverSentEvents,
    events(_index, output) {
      outputTokens += output.tokenIds.length;
      const before = isFirst ? opening : "";
      isFirst = false;
      if (output.finish === undefined && topLogprobs === null) {
        if (output.text === "") return before;
        return `${before}${start}{"content":${JSON.stringify(output.text)}${plainEnd}`;
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
    closing() {
      if (!task.includeUsage) return "data: [DONE]\n\n";
      const promptTokens = generation.handles[0].promptTokenIds.length;
      const counted = JSON.stringify(usage(promptTokens, outputTokens));
      return `data: ${head},"choices":[],"usage":${counted}}\n\ndata: [DONE]\n\n`;
    },
  });
}
