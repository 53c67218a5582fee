import type { SamplingParams } from "./protocol/generate.ts";

/** What vLLM 0.4.2 samples with where a request says nothing (vllm/sampling_params.py). */
export const samplingDefaults: Omit<SamplingParams, "maxTokens" | "seed" | "eosTokenIds"> = {
  minTokens: 0,
  temperature: 1,
  topP: 1,
  topK: -1,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  stopTokenIds: [],
  ignoreEos: false,
  logprobs: null,
  promptLogprobs: null,
};
