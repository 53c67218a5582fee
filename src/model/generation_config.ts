import * as z from "zod";
import { ModelError } from "../core/errors.ts";
import type { SamplingParams } from "../core/protocol/generate.ts";

/** The used fields of generation_config.json, a file that may be absent. */
export interface GenerationConfig {
  /** Null if the file names none; then those of config.json apply. */
  readonly eosTokenIds: readonly number[] | null;
  /** Sampling parameters of requests that do not set them. */
  readonly defaultSampling: Readonly<Partial<SamplingParams>>;
}

const tokenId = z.number().int().nonnegative();

const generationSchema = z.object({
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
  do_sample: z.boolean().nullish(),
  temperature: z.number().nonnegative().nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.number().int().nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().positive().nullish(),
});

/**
 * Reads the content of a Hugging Face generation_config.json.
 * @param source where it comes from, for messages
 * @throws {ModelError} a field of a wrong type
 */
export function parseGenerationConfig(json: unknown, source: string): GenerationConfig {
  const result = generationSchema.safeParse(json);
  if (!result.success) {
    const problems = result.error.issues.map((issue) =>
      `${issue.path.join(".")}: ${issue.message}`
    );
    throw new ModelError(`${source} is not a usable generation config: ${problems.join("; ")}.`);
  }
  const raw = result.data;
  const eos = raw.eos_token_id;
  const sampling: { -readonly [K in keyof SamplingParams]?: SamplingParams[K] } = {};
  // `do_sample: false` does not make the default greedy: vLLM ignores the field, and so do we.
  if (raw.temperature != null) sampling.temperature = raw.temperature;
  if (raw.top_p) sampling.topP = raw.top_p;
  if (raw.top_k != null) sampling.topK = raw.top_k > 0 ? raw.top_k : -1;
  if (raw.min_p != null) sampling.minP = raw.min_p;
  if (raw.repetition_penalty != null) sampling.repetitionPenalty = raw.repetition_penalty;
  return {
    eosTokenIds: eos == null ? null : Array.isArray(eos) ? eos : [eos],
    defaultSampling: sampling,
  };
}
