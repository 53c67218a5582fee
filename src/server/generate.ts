/** `/generate` and `/generate_benchmark`: the API of vLLM's plain server and of Llumnix. */
import { STATUS_CODE } from "@std/http/status";
import * as z from "zod";
import { realClock } from "../core/clock.ts";
import { RequestError } from "../core/errors.ts";
import type { RequestedSampling, TextLogprob, TextRequest } from "../frontend/service.ts";
import { type CollectedOutput, collectOutput } from "./collected_output.ts";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { Generation } from "./generation.ts";
import { readGenerationBody } from "./json_body.ts";
import { LatencyBreakdown } from "./latency_breakdown.ts";
import { logprobsById } from "./logprobs.ts";
import { requestedPriority } from "./priority.ts";
import { parsePrompts } from "./prompts.ts";
import { refuseUnsupportedFields } from "./refused_fields.ts";
import { newTextRequestId } from "./request_ids.ts";
import { checkStreamOptions, samplingFields, toSampling, toTextParams } from "./sampling_fields.ts";
import { streamOutput } from "./streamed_output.ts";
import { knownFields } from "./unknown_fields.ts";
import { anInteger, trueOrFalse, validate } from "./validation.ts";

export const generateSchema = z.object({
  ...samplingFields,
  logprobs: z.union([anInteger, z.literal(false)], "an integer").nullish(),
  n: z.literal(1, "1 on this route (/v1/completions returns several outputs)").nullish(),
  detokenize: trueOrFalse.nullish(),
});
const known = knownFields(generateSchema, ["model", "prompt"]);

/**
 * Answers `{"text": [prompt + output]}`, with `token_ids`, `logprobs` and `prompt_logprobs` if the request
 * asks for them. A stream is a sequence of such documents, each with all the text so far and ended by NUL.
 */
export async function generate(exchange: Exchange, context: ServerContext): Promise<void> {
  const { request, stream } = await readRequest(exchange, context);
  const generation = await Generation.start(context, exchange, [request]);
  const withTokenIds = !request.text.detokenize;
  const withLogprobs = request.sampling.logprobs !== undefined;
  const answer = ({ text, tokenIds, logprobs, promptLogprobs }: Answered) => ({
    text: [generation.handles[0].promptText + text],
    ...(withTokenIds ? { token_ids: [tokenIds] } : {}),
    ...(withLogprobs ? { logprobs: [logprobsById(logprobs)] } : {}),
    ...(promptLogprobs ? { prompt_logprobs: logprobsById(promptLogprobs) } : {}),
  });
  if (!stream) {
    const [output] = await collectOutput(generation);
    return exchange.sendJson(STATUS_CODE.OK, answer(output));
  }
  let text = "";
  const tokenIds: number[] = [];
  const logprobs: TextLogprob[] = [];
  const frame = (json: string) => `${json}\0`;
  await streamOutput(exchange, generation, {
    contentType: "text/plain; charset=utf-8",
    neutral: "\n",
    frame,
    events(_index, output, congested) {
      text += output.text;
      if (withTokenIds) tokenIds.push(...output.tokenIds);
      if (withLogprobs) logprobs.push(...output.logprobs ?? []);
      // Each document repeats the text before it, so a client that is behind misses nothing.
      if (congested && output.finish === undefined) return "";
      return frame(JSON.stringify(answer({ text, tokenIds, logprobs, promptLogprobs: null })));
    },
    closing: () => "",
  });
}

/** Answers when each token came. Never streams. */
export async function generateBenchmark(exchange: Exchange, context: ServerContext): Promise<void> {
  const { request } = await readRequest(exchange, context);
  refuseLogprobs(request.sampling);
  let lastMs = realClock.nowMs();
  const { logRequestTimestamps: hopTimestamps } = context.options;
  const breakdown = new LatencyBreakdown();
  const generation = await Generation.start(context, exchange, [
    { ...request, timestamps: true, hopTimestamps },
  ]);
  let text = "";
  const latencies: [unixSeconds: number, ms: number][] = [];
  await generation.run((_index, output) => {
    breakdown.add(output, realClock.nowMs());
    text += output.text;
    for (const timeMs of output.timesMs ?? []) {
      latencies.push([timeMs / 1000, timeMs - lastMs]);
      lastMs = timeMs;
    }
  });
  exchange.sendJson(STATUS_CODE.OK, {
    request_id: request.requestId,
    generated_text: text,
    num_output_tokens_cf: latencies.length,
    per_token_latency: latencies,
    per_token_latency_breakdown_dict: breakdown,
  });
}

/** What {@linkcode generate} answers with. */
type Answered = Pick<CollectedOutput, "text" | "tokenIds" | "logprobs" | "promptLogprobs">;

/** @throws {RequestError} the request asks for log probabilities, for which the answer has no place */
function refuseLogprobs({ logprobs, promptLogprobs }: RequestedSampling): void {
  if (logprobs === undefined && promptLogprobs === undefined) return;
  const name = logprobs === undefined ? "prompt_logprobs" : "logprobs";
  throw new RequestError(`${name} is not answered by this route; use /generate.`, name);
}

async function readRequest(
  exchange: Exchange,
  context: ServerContext,
): Promise<{ request: TextRequest; stream: boolean }> {
  const { service } = context;
  const body = await readGenerationBody(exchange, context, { anyContentType: true });
  refuseUnsupportedFields(body);
  context.checkFields(body, known);
  const fields = validate(generateSchema, body);
  const prompts = parsePrompts(body.prompt, fields.add_special_tokens ?? undefined, Infinity);
  if (prompts.length !== 1) {
    throw new RequestError(
      "prompt is a batch, but this route takes one prompt; use /v1/completions.",
      "prompt",
    );
  }
  checkStreamOptions(fields, context.checkFields);
  const logprobs = {
    output: fields.logprobs || fields.logprobs === 0 ? fields.logprobs : null,
    prompt: fields.prompt_logprobs ?? null,
  };
  const sampling = toSampling(fields, fields.max_tokens ?? 16, logprobs);
  const detokenize = service.model.hasTokenizer && (fields.detokenize ?? true);
  const request = {
    requestId: newTextRequestId(exchange.requestId),
    prompt: prompts[0],
    sampling,
    text: toTextParams(fields, detokenize),
    badWords: fields.bad_words ?? undefined,
    priority: requestedPriority(exchange, fields.priority),
  };
  return { request, stream: fields.stream ?? false };
}
