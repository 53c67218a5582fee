import * as z from "zod";
import type { DType } from "../core/dtype.ts";
import { ModelError } from "../core/errors.ts";
import type { RopeConfig, RopeScaling } from "./rope.ts";

/** Supported values of `architectures` in config.json. */
export const supportedArchitectures = [
  "LlamaForCausalLM",
  "MistralForCausalLM",
  "Qwen2ForCausalLM",
  "Qwen3ForCausalLM",
] as const;
export type Architecture = typeof supportedArchitectures[number];

/** Which families have an RMS norm of each query and key head. */
const hasQkNorm: Record<Architecture, boolean> = {
  LlamaForCausalLM: false,
  MistralForCausalLM: false,
  Qwen2ForCausalLM: false,
  Qwen3ForCausalLM: true,
};

/** A decoder-only transformer, with every default resolved. */
export interface ModelConfig {
  readonly architecture: Architecture;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly rmsNormEps: number;
  readonly rope: RopeConfig;
  /** Longest sequence in tokens that the model was trained for. */
  readonly maxPositionEmbeddings: number;
  /** Number of last tokens that a position attends to; null for all. */
  readonly slidingWindow: number | null;
  readonly tieWordEmbeddings: boolean;
  /** Biases of the query, key and value projections. */
  readonly qkvBias: boolean;
  /** Bias of the attention's output projection. */
  readonly outputBias: boolean;
  /** Biases of the feed-forward projections. */
  readonly mlpBias: boolean;
  /** RMS norm of each query and key head (Qwen3). */
  readonly qkNorm: boolean;
  /** Declared type of the stored weights; float32 if config.json declares none. */
  readonly dtype: DType;
  readonly eosTokenIds: readonly number[];
}

const count = z.number().int().positive();
const positive = z.number().positive();
const tokenId = z.number().int().nonnegative();

const ropeSchema = z.object({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: positive.nullish(),
  factor: positive.nullish(),
  low_freq_factor: positive.nullish(),
  high_freq_factor: positive.nullish(),
  original_max_position_embeddings: count.nullish(),
});

const configSchema = z.object({
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  hidden_act: z.string().nullish(),
  rms_norm_eps: positive.nullish(),
  max_position_embeddings: count.nullish(),
  rope_theta: positive.nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  sliding_window: count.nullish(),
  use_sliding_window: z.boolean().nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  torch_dtype: z.string().nullish(),
  dtype: z.string().nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
  quantization_config: z.unknown().optional(),
});
type RawConfig = z.infer<typeof configSchema>;

/**
 * Reads the content of a Hugging Face config.json.
 * @param source where it comes from, for messages
 * @throws {ModelError} an unsupported architecture or feature, or a field missing or of a wrong type
 */
export function parseModelConfig(json: unknown, source: string): ModelConfig {
  const architecture = parseArchitecture(json, source);
  const result = configSchema.safeParse(json);
  if (!result.success) {
    const problems = result.error.issues.map((issue) =>
      `${issue.path.join(".")}: ${issue.message}`
    );
    throw new ModelError(`${source} is not a usable model config: ${problems.join("; ")}.`);
  }
  const raw = result.data;
  refuseUnsupported(raw, source);

  const numHeads = raw.num_attention_heads;
  const numKvHeads = raw.num_key_value_heads ?? numHeads;
  const headDim = raw.head_dim ?? raw.hidden_size / numHeads;
  if (numHeads % numKvHeads !== 0) {
    throw new ModelError(
      `${source}: num_attention_heads (${numHeads}) must be a multiple of num_key_value_heads ` +
        `(${numKvHeads}).`,
    );
  }
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw new ModelError(`${source}: the head size must be an even integer, found ${headDim}.`);
  }
  const maxPositionEmbeddings = raw.max_position_embeddings ?? 2048;
  const eos = raw.eos_token_id ?? [];
  return {
    architecture,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    numLayers: raw.num_hidden_layers,
    numHeads,
    numKvHeads,
    headDim,
    rmsNormEps: raw.rms_norm_eps ?? 1e-6,
    rope: parseRope(raw, maxPositionEmbeddings, source),
    maxPositionEmbeddings,
    slidingWindow: parseSlidingWindow(raw, architecture),
    tieWordEmbeddings: raw.tie_word_embeddings ?? false,
    ...parseBiases(raw, architecture),
    qkNorm: hasQkNorm[architecture],
    dtype: parseDType(raw, source),
    eosTokenIds: Array.isArray(eos) ? eos : [eos],
  };
}

function parseArchitecture(json: unknown, source: string): Architecture {
  const supported = supportedArchitectures.join(", ");
  const names = (json as { architectures?: unknown } | null)?.architectures;
  if (!Array.isArray(names) || names.length === 0) {
    throw new ModelError(
      `${source} names no architecture. Expected "architectures" with one of: ${supported}.`,
    );
  }
  const known = supportedArchitectures.find((name) => names.includes(name));
  if (!known) {
    throw new ModelError(
      `Model architecture ${names.join(", ")} is not supported (${source}). ` +
        `Supported architectures: ${supported}.`,
    );
  }
  return known;
}

function refuseUnsupported(raw: RawConfig, source: string): void {
  if (raw.hidden_act && raw.hidden_act !== "silu") {
    throw new ModelError(
      `${source}: activation ${raw.hidden_act} is not supported; only silu is.`,
    );
  }
  if (raw.quantization_config) {
    const { quant_method: method, weight_block_size: blocks } =
      (raw.quantization_config ?? {}) as Record<string, unknown>;
    if (method === "fp8" && (blocks ?? null) === null) return;
    throw new ModelError(
      `${source}: quantised weights (quantization_config) are supported only as ` +
        `"quant_method": "fp8" without "weight_block_size", that is in 8 bits with a scale for each ` +
        `tensor or output. Use the model's float32, float16 or bfloat16 weights.`,
    );
  }
}

/** Which projections have biases: see the `*Attention` and `*MLP` classes of transformers. */
function parseBiases(raw: RawConfig, architecture: Architecture) {
  switch (architecture) {
    case "LlamaForCausalLM": {
      const attention = raw.attention_bias ?? false;
      return { qkvBias: attention, outputBias: attention, mlpBias: raw.mlp_bias ?? false };
    }
    case "MistralForCausalLM":
      return { qkvBias: false, outputBias: false, mlpBias: false };
    case "Qwen2ForCausalLM":
      return { qkvBias: true, outputBias: false, mlpBias: false };
    case "Qwen3ForCausalLM": {
      const attention = raw.attention_bias ?? false;
      return { qkvBias: attention, outputBias: attention, mlpBias: false };
    }
  }
}

function parseSlidingWindow(raw: RawConfig, architecture: Architecture): number | null {
  const window = raw.sliding_window ?? null;
  switch (architecture) {
    case "LlamaForCausalLM":
      return null;
    case "MistralForCausalLM":
      return window;
    case "Qwen2ForCausalLM":
    case "Qwen3ForCausalLM":
      return raw.use_sliding_window ? window : null;
  }
}

/** Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`. */
function parseRope(raw: RawConfig, maxPositions: number, source: string): RopeConfig {
  const parameters = raw.rope_parameters ?? raw.rope_scaling ?? {};
  const theta = raw.rope_parameters?.rope_theta ?? raw.rope_theta ?? 10000;
  const type = parameters.rope_type ?? parameters.type ?? "default";
  const require = (value: number | null | undefined, field: string): number => {
    if (value) return value;
    throw new ModelError(`${source}: RoPE scaling of type ${type} needs "${field}".`);
  };
  let scaling: RopeScaling | null;
  switch (type) {
    case "default":
      scaling = null;
      break;
    case "linear":
      scaling = { type, factor: require(parameters.factor, "factor") };
      break;
    case "llama3":
      scaling = {
        type,
        factor: require(parameters.factor, "factor"),
        lowFreqFactor: require(parameters.low_freq_factor, "low_freq_factor"),
        highFreqFactor: require(parameters.high_freq_factor, "high_freq_factor"),
        originalMaxPositions: parameters.original_max_position_embeddings ?? maxPositions,
      };
      break;
    default:
      throw new ModelError(
        `${source}: RoPE scaling of type ${type} is not supported. Supported: default, linear, ` +
          `llama3.`,
      );
  }
  return { theta, scaling };
}

function parseDType(raw: RawConfig, source: string): DType {
  const name = (raw.dtype ?? raw.torch_dtype ?? "float32").replace(/^torch\./, "");
  if (name === "float32" || name === "float16" || name === "bfloat16") return name;
  throw new ModelError(
    `${source}: weights of type ${name} are not supported. Supported: float32, float16, bfloat16.`,
  );
}
