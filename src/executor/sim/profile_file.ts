import * as z from "zod";
import { UsageError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import type { ModelProfile } from "./profile.ts";

// The message of each schema says what its field must be.
const COUNT = "a whole number, 1 or more";
const MS = "a number of milliseconds, 0 or more";
const GBPS = "a number of gigabytes per second, more than 0";
const FRACTION = "a fraction, more than 0 and at most 1";
const OBJECT = "an object";
const LIST = "a list of one or more";
/** Where the reader finds an example. */
const FORM = "(llumnix simulate --help shows a profile)";
const count = z.int(COUNT).positive(COUNT);
const ms = z.number(MS).nonnegative(MS);
const source = z.string("text").default("");
const bandwidth = z.strictObject({
  /** 10^9 bytes per second. */
  gbps: z.number(GBPS).positive(GBPS),
  source,
}, OBJECT);

/** One entry per model and degree of parallelism. */
const modelSchema = z.strictObject({
  /** Base name of `--model`. */
  model: z.string("text").min(1, "text that is not empty"),
  tensor_parallel_size: count.default(1),
  pipeline_parallel_size: count.default(1),
  /** What the KV cache's size depends on; see the model's config.json. */
  shape: z.strictObject({
    dtype: z.enum(["float32", "float16", "bfloat16"], "float32, float16 or bfloat16"),
    num_layers: count,
    num_kv_heads: count,
    head_dim: count,
    max_model_len: count,
  }, OBJECT),
  /** Inputs are padded up to a multiple of this: 8 if it is absent. */
  alignment: count.optional(),
  /** Prompts come in pieces of so many tokens at most; whole if it is absent. */
  max_piece_tokens: count.optional(),
  /** `ms_per_squared_token * squares + ms_per_token * tokens + ms_per_step` */
  prefill: z.strictObject({
    /** Absent: 0. */
    ms_per_squared_token: ms.optional(),
    ms_per_token: ms,
    ms_per_step: ms,
    source,
  }, OBJECT),
  /** `ms_per_sequence * batch + ms_per_token * total_tokens + ms_per_step` */
  decode: z.strictObject({
    ms_per_sequence: ms,
    ms_per_token: ms,
    ms_per_step: ms,
    source,
  }, OBJECT),
  /** Time of a request outside of the instance. */
  request: z.strictObject({ ms_per_request: ms, source }, OBJECT).optional(),
  /** Blocks of the KV cache by what they depend on; `max_batched_tokens: null` stands for any. */
  blocks: z.array(
    z.strictObject({
      gpu_memory_utilization: z.number(FRACTION).positive(FRACTION).max(1, FRACTION),
      block_size: count,
      max_batched_tokens: count.nullable(),
      num_blocks: count,
      source,
    }, OBJECT),
    LIST,
  ).min(1, LIST),
  migration: bandwidth,
  swap: bandwidth,
}, OBJECT);

/**
 * Content of `--profiling-result-file-path`. Times are milliseconds, and every `source` says where its
 * numbers come from.
 */
export const profileSchema = z.strictObject({
  version: z.literal(1, "1"),
  models: z.array(modelSchema, LIST).min(1, LIST),
}, OBJECT);

type ModelRecord = z.infer<typeof modelSchema>;

/**
 * Reads a profile file.
 * @throws {UsageError} it cannot be read, is not JSON, or is not a profile
 */
export function readProfileFile(path: string): ModelProfile[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    throw new UsageError(`Cannot read the profile ${path}: ${fileProblem(error)}.`, {
      cause: error,
    });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`The profile ${path} is not JSON: ${(error as Error).message}.`);
  }
  return parseProfile(json, path);
}

/**
 * Checks the content of a profile file.
 * @param name of the file, for messages
 * @throws {UsageError} naming the first field that is wrong
 */
export function parseProfile(json: unknown, name: string): ModelProfile[] {
  const result = profileSchema.safeParse(json);
  if (!result.success) {
    throw new UsageError(`The profile ${name} is wrong: ${problemOf(result.error, json)}.`);
  }
  const profiles = result.data.models.map(fromRecord);
  const seen = new Set<string>();
  for (const { model, tensorParallelSize, pipelineParallelSize } of profiles) {
    const key = `${model} with tp ${tensorParallelSize}, pp ${pipelineParallelSize}`;
    if (seen.has(key)) throw new UsageError(`The profile ${name} has ${key} twice.`);
    seen.add(key);
  }
  return profiles;
}

/** The first problem. An unknown field comes before a missing one: it is often a misspelling of it. */
function problemOf({ issues }: z.ZodError, json: unknown): string {
  const unknown = issues.find(({ code }) => code === "unrecognized_keys");
  if (unknown?.code === "unrecognized_keys") {
    return `there is no field ${unknown.keys[0]} in ${fieldName(unknown.path)} ${FORM}`;
  }
  const [{ path, message }] = issues;
  const value = path.reduce<unknown>(
    (value, key) => (value as Record<PropertyKey, unknown>)[key],
    json,
  );
  const found = value === undefined ? "missing" : JSON.stringify(value);
  return `${fieldName(path)} is ${found}, expected ${message} ${FORM}`;
}

/** `models[0].decode.ms_per_step` */
function fieldName(path: readonly PropertyKey[]): string {
  const text = path.map((key) => typeof key === "number" ? `[${key}]` : `.${String(key)}`).join("");
  return text.replace(/^\./, "") || "its top level";
}

/** Content of a profile file with these profiles. */
export function toProfileJson(profiles: readonly ModelProfile[]): z.infer<typeof profileSchema> {
  return { version: 1, models: profiles.map(toRecord) };
}

function fromRecord(record: ModelRecord): ModelProfile {
  const { shape, prefill, decode, request } = record;
  return {
    model: record.model,
    tensorParallelSize: record.tensor_parallel_size,
    pipelineParallelSize: record.pipeline_parallel_size,
    shape: {
      dtype: shape.dtype,
      numLayers: shape.num_layers,
      numKvHeads: shape.num_kv_heads,
      headDim: shape.head_dim,
      maxModelLen: shape.max_model_len,
    },
    ...(record.alignment === undefined ? {} : { alignment: record.alignment }),
    ...(record.max_piece_tokens !== undefined && { maxPieceTokens: record.max_piece_tokens }),
    prefill: {
      ...(prefill.ms_per_squared_token !== undefined && {
        msPerSquaredToken: prefill.ms_per_squared_token,
      }),
      msPerToken: prefill.ms_per_token,
      msPerStep: prefill.ms_per_step,
      source: prefill.source,
    },
    decode: {
      msPerSequence: decode.ms_per_sequence,
      msPerToken: decode.ms_per_token,
      msPerStep: decode.ms_per_step,
      source: decode.source,
    },
    ...(request === undefined
      ? {}
      : { request: { msPerRequest: request.ms_per_request, source: request.source } }),
    blocks: record.blocks.map((entry) => ({
      memoryUtilization: entry.gpu_memory_utilization,
      blockSize: entry.block_size,
      maxBatchedTokens: entry.max_batched_tokens,
      numBlocks: entry.num_blocks,
      source: entry.source,
    })),
    migration: record.migration,
    swap: record.swap,
  };
}

function toRecord(profile: ModelProfile): ModelRecord {
  const { shape, prefill, decode, request } = profile;
  return {
    model: profile.model,
    tensor_parallel_size: profile.tensorParallelSize,
    pipeline_parallel_size: profile.pipelineParallelSize,
    shape: {
      dtype: shape.dtype,
      num_layers: shape.numLayers,
      num_kv_heads: shape.numKvHeads,
      head_dim: shape.headDim,
      max_model_len: shape.maxModelLen,
    },
    ...(profile.alignment === undefined ? {} : { alignment: profile.alignment }),
    ...(profile.maxPieceTokens !== undefined && { max_piece_tokens: profile.maxPieceTokens }),
    prefill: {
      ...(prefill.msPerSquaredToken !== undefined && {
        ms_per_squared_token: prefill.msPerSquaredToken,
      }),
      ms_per_token: prefill.msPerToken,
      ms_per_step: prefill.msPerStep,
      source: prefill.source,
    },
    decode: {
      ms_per_sequence: decode.msPerSequence,
      ms_per_token: decode.msPerToken,
      ms_per_step: decode.msPerStep,
      source: decode.source,
    },
    ...(request === undefined
      ? {}
      : { request: { ms_per_request: request.msPerRequest, source: request.source } }),
    blocks: profile.blocks.map((entry) => ({
      gpu_memory_utilization: entry.memoryUtilization,
      block_size: entry.blockSize,
      max_batched_tokens: entry.maxBatchedTokens,
      num_blocks: entry.numBlocks,
      source: entry.source,
    })),
    migration: profile.migration,
    swap: profile.swap,
  };
}
