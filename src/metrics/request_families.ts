import { errorKinds } from "../core/errors.ts";
import { counter, gauge, histogram, type MetricFamily } from "./family.ts";
import type { RequestMeter } from "./request_meter.ts";

/**
 * The metrics of an API server's own requests.
 * @param model the name that clients use
 */
export function requestFamilies(meter: RequestMeter, model: string): MetricFamily[] {
  const labels = { model_name: model };
  const one = <T>(value: T) => [{ labels, value }];
  const queues = Object.entries(meter.queue);
  const whole = new Map(Object.entries(meter.outcomes));
  return [
    histogram(
      "vllm:time_to_first_token_seconds",
      "Time from a request's arrival to its first token.",
      one(meter.firstToken),
    ),
    histogram(
      "vllm:time_per_output_token_seconds",
      "Time between two output tokens of a request.",
      one(meter.betweenTokens),
    ),
    histogram(
      "vllm:inter_token_latency_seconds",
      "The same as vllm:time_per_output_token_seconds, by its newer name.",
      one(meter.betweenTokens),
    ),
    histogram(
      "vllm:request_time_per_output_token_seconds",
      "Mean time per output token of each finished request, after its first.",
      one(meter.perToken),
    ),
    histogram(
      "vllm:e2e_request_latency_seconds",
      "Time from the arrival of a finished request to its end.",
      one(meter.endToEnd),
    ),
    histogram(
      "vllm:request_queue_time_seconds",
      "Time from a request's arrival to its first step: tokenization, dispatch and queue.",
      queues.map(([priority, value]) => ({ labels: { ...labels, priority }, value })),
    ),
    histogram(
      "vllm:request_prefill_time_seconds",
      "Time from a request's first step to its first token.",
      one(meter.prefill),
    ),
    histogram(
      "vllm:request_decode_time_seconds",
      "Time from the first token of a finished request to its end.",
      one(meter.decode),
    ),
    histogram(
      "vllm:request_prompt_tokens",
      "Prompt tokens of each finished request.",
      one(meter.promptLength),
    ),
    histogram(
      "vllm:request_generation_tokens",
      "Output tokens of each finished request.",
      one(meter.outputLength),
    ),
    counter(
      "vllm:prompt_tokens_total",
      "Prompt tokens of this API server's requests that got their first token.",
      one(meter.promptTokens),
    ),
    counter(
      "vllm:generation_tokens_total",
      "Output tokens of this API server's requests.",
      one(meter.outputTokens),
    ),
    counter(
      "vllm:request_success_total",
      "Requests that ended without an error, by reason; abort: the client left.",
      ["stop", "length", "abort"].map((reason) => ({
        labels: { ...labels, finished_reason: reason },
        value: whole.get(reason)!,
      })),
    ),
    counter(
      "llumnix:failed_requests_total",
      "Requests that were refused or failed, by kind of error.",
      // All kinds, from the start: Prometheus sees no increase in a counter that begins with 1.
      errorKinds.map((kind) => ({
        labels: { ...labels, kind },
        value: meter.errors.get(kind) ?? 0,
      })),
    ),
    gauge(
      "llumnix:api_server_requests",
      "Requests of this API server that have not ended.",
      one(meter.numRunning),
    ),
  ];
}
