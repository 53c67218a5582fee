import type { DType } from "../core/dtype.ts";
import { ModelError, UsageError } from "../core/errors.ts";
import type { SamplingParams } from "../core/protocol/generate.ts";
import type { EngineOptions } from "../core/options.ts";
import { storyModelDirectory, storyModelName, tinyModel, tinyModelName } from "./builtin.ts";
import { type ModelConfig, parseModelConfig } from "./config.ts";
import { parseGenerationConfig } from "./generation_config.ts";
import { locateModel, modelIdentity } from "./locate.ts";
import { RandomWeights } from "./random_weights.ts";
import type { OpenFile } from "./safetensors.ts";
import { SafetensorsWeights } from "./safetensors_weights.ts";
import type { TensorSource } from "./tensor.ts";

/** The options that a model and its numerics depend on. */
export type ModelOptions = Pick<
  EngineOptions,
  "model" | "revision" | "downloadDir" | "loadFormat" | "dtype" | "maxModelLen" | "seed"
>;

/** A model whose files were found and fit the options. */
export interface ResolvedModel {
  /** As configured, or a built-in model's name. */
  readonly name: string;
  /** See {@linkcode modelIdentity}. */
  readonly identity: string;
  /** The directory of its files; null for `llumnix-tiny`, which has none. */
  readonly directory: string | null;
  readonly config: ModelConfig;
  /** Tokens that end an output: generation_config.json's, else config.json's. */
  readonly eosTokenIds: readonly number[];
  readonly defaultSampling: Readonly<Partial<SamplingParams>>;
  /** Element type of weights and KV cache. */
  readonly dtype: DType;
  /** Longest sequence in tokens, prompt and output. */
  readonly maxModelLen: number;
  /** Things the user should know. */
  readonly warnings: readonly string[];
}

/**
 * Finds the model of the options and reads its configuration, but no weights.
 * @throws {ModelError} the model is missing, damaged or not supported
 * @throws {UsageError} the options do not fit the model
 */
export function resolveModel(options: ModelOptions): ResolvedModel {
  const found = find(options);
  const { config } = found;
  const warnings: string[] = [];
  if (options.model === null) {
    warnings.push(
      `No --model was given: serving the built-in ${found.name}, a very small model that tells ` +
        `short stories and does sums.`,
    );
  } else if (options.loadFormat === "dummy") {
    warnings.push("--load-format dummy: the weights are random; the output has no meaning.");
  }
  const generation = parseGenerationConfig(found.generationJson, found.generationSource);
  return {
    name: found.name,
    identity: found.identity,
    directory: found.directory,
    config,
    eosTokenIds: generation.eosTokenIds ?? config.eosTokenIds,
    defaultSampling: generation.defaultSampling,
    dtype: resolveDType(options.dtype, config),
    maxModelLen: resolveMaxModelLen(options.maxModelLen, config, warnings),
    warnings,
  };
}

/**
 * Opens the weights of a resolved model.
 * @param open opens the files: by mapping them, or {@linkcode openByReading}
 * @throws {ModelError} there are no safetensors weights, or they are damaged
 */
export function openWeights(
  model: ResolvedModel,
  options: ModelOptions,
  open: OpenFile,
): TensorSource {
  if (model.directory === null) return new RandomWeights(model.config, model.dtype, 0);
  if (options.loadFormat === "dummy") {
    return new RandomWeights(model.config, model.dtype, options.seed);
  }
  return new SafetensorsWeights(model.directory, open);
}

interface Found {
  readonly name: string;
  readonly identity: string;
  readonly directory: string | null;
  readonly config: ModelConfig;
  readonly generationJson: unknown;
  readonly generationSource: string;
}

/** The names of built-in models come before those of directories and of models on the hub. */
function find(options: ModelOptions): Found {
  switch (options.model) {
    case null:
    case storyModelName:
      return { ...findIn(storyModelDirectory()), name: storyModelName, identity: storyModelName };
    case tinyModelName:
      return findTiny();
    default: {
      const [name, identity] = [options.model, modelIdentity(options.model)];
      return { ...findIn(locateModel(name, options)), name, identity };
    }
  }
}

function findTiny(): Found {
  const { name, config, generationConfig } = tinyModel();
  return {
    name,
    identity: name,
    directory: null,
    config: parseModelConfig(config, `config of ${name}`),
    generationJson: generationConfig,
    generationSource: `generation config of ${name}`,
  };
}

function findIn(directory: string): Omit<Found, "name" | "identity"> {
  const configPath = `${directory}/config.json`;
  const json = readJson(configPath);
  if (json === undefined) throw notAModel(directory);
  const generationSource = `${directory}/generation_config.json`;
  return {
    directory,
    config: parseModelConfig(json, configPath),
    generationJson: readJson(generationSource) ?? {},
    generationSource,
  };
}

/** Content of a JSON file; undefined if there is no such file. */
function readJson(path: string): unknown {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new ModelError(`Cannot read ${path}: ${(error as Error).message}.`, { cause: error });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ModelError(`${path} is not JSON: ${(error as Error).message}.`);
  }
}

function notAModel(directory: string): ModelError {
  const names = [...Deno.readDirSync(directory)].map((entry) => entry.name).sort();
  const listed = names.slice(0, 5).join(", ") + (names.length > 5 ? ", ..." : "");
  return new ModelError(
    `${directory} is not a model: it has no config.json (it holds: ${listed || "nothing"}). ` +
      `Expected a directory in Hugging Face layout: config.json, *.safetensors, tokenizer.json.`,
  );
}

/**
 * The type for `--dtype`; `auto` is the type in which the model is stored. vLLM serves float32 models in
 * float16; here they stay float32, so that no accuracy is lost.
 */
function resolveDType(option: ModelOptions["dtype"], config: ModelConfig): DType {
  switch (option) {
    case "auto":
      return config.dtype;
    case "half":
      return "float16";
    case "float":
      return "float32";
    default:
      return option;
  }
}

/** Longest sequence that the model supports; linear RoPE scaling stretches it, as in vLLM. */
function resolveMaxModelLen(
  option: number | null,
  config: ModelConfig,
  warnings: string[],
): number {
  const { scaling } = config.rope;
  const stretch = scaling?.type === "linear" ? scaling.factor : 1;
  const supported = Math.floor(config.maxPositionEmbeddings * stretch);
  const window = config.slidingWindow ?? Infinity;
  if (option !== null && option > supported) {
    throw new UsageError(
      `--max-model-len ${option} is more than the ${supported} tokens for which the model is made ` +
        `(max_position_embeddings in its config.json). Use ${supported} or less.`,
    );
  }
  if (option !== null && option > window) {
    throw new UsageError(
      `--max-model-len ${option} is more than the model's sliding window of ${window} tokens, and ` +
        `attention over a sliding window is not supported. Use ${window} or less.`,
    );
  }
  if (option === null && supported > window) {
    warnings.push(
      `The model's sliding window of ${window} tokens is shorter than its ${supported} positions, ` +
        `and attention over a sliding window is not supported: sequences are limited to ${window} ` +
        `tokens.`,
    );
  }
  return option ?? Math.min(supported, window);
}
