import { dtypeBytes } from "../../core/dtype.ts";
import { UsageError } from "../../core/errors.ts";
import type { EngineOptions } from "../../core/options.ts";
import { blockBytes, type KvLayout } from "../../kv/layout.ts";
import type { BlocksKey, ModelProfile } from "./profile.ts";
import { readProfileFile } from "./profile_file.ts";
import { builtinModelNames, builtinProfile } from "./roofline.ts";

/** The options that a simulation depends on. */
export type SimulationOptions = Pick<
  EngineOptions,
  | "model"
  | "dtype"
  | "maxModelLen"
  | "maxNumBatchedTokens"
  | "blockSize"
  | "gpuMemoryUtilization"
  | "numGpuBlocksOverride"
  | "swapSpace"
  | "profilingResultFilePath"
  | "gpuType"
>;

/** What a simulated instance is, with every size resolved. */
export interface Simulation {
  readonly profile: ModelProfile;
  /** As configured. */
  readonly model: string;
  /** For people: "a10", or the profile's file. */
  readonly device: string;
  readonly layout: KvLayout;
  readonly numBlocks: number;
  readonly numSwapBlocks: number;
  /** Longest sequence in tokens. */
  readonly maxModelLen: number;
}

/** Limit for built-in models of longer context, unless `--max-model-len` is set. */
const DEFAULT_MAX_MODEL_LEN = 16384;
/** vLLM 0.4.2, `SchedulerConfig`: the least default of `--max-num-batched-tokens`. */
const MIN_BATCHED_TOKENS = 2048;

/**
 * Finds the profile that the options name, and the sizes of an instance on it.
 * @throws {UsageError} no such profile, GPU or model, or options that do not fit the profile
 */
export function resolveSimulation(options: SimulationOptions): Simulation {
  const { model, profilingResultFilePath: path } = options;
  const isBuiltin = path === "";
  if (model === null) {
    const known = isBuiltin ? builtinModelNames : modelNames(readProfileFile(path));
    throw new UsageError(`--device sim needs --model: one of ${known.join(", ")}.`);
  }
  const profile = isBuiltin ? builtin(options, baseName(model)) : findInFile(path, baseName(model));
  const { shape } = profile;
  refuseOptions(options, profile);
  const longest = isBuiltin ? Math.min(shape.maxModelLen, DEFAULT_MAX_MODEL_LEN) : Infinity;
  const wanted = options.maxModelLen ?? Math.min(shape.maxModelLen, longest);
  const numBlocks = options.numGpuBlocksOverride ??
    numBlocksOf(profile, blocksKey(options, wanted), isBuiltin ? profile.model : path);
  const capacityTokens = numBlocks * options.blockSize;
  if (options.maxModelLen !== null && options.maxModelLen > capacityTokens) {
    throw new UsageError(
      `The simulated KV cache holds ${capacityTokens} tokens (${numBlocks} blocks of ` +
        `${options.blockSize}), fewer than one sequence of --max-model-len ` +
        `${options.maxModelLen}. Lower it, or raise --gpu-memory-utilization or ` +
        `--num-gpu-blocks-override.`,
    );
  }
  const layout: KvLayout = {
    format: "k-transposed",
    dtype: shape.dtype,
    numLayers: shape.numLayers,
    numKvHeads: shape.numKvHeads,
    headDim: shape.headDim,
    blockSize: options.blockSize,
  };
  return {
    profile,
    model,
    device: isBuiltin ? options.gpuType.toLowerCase() : path,
    layout,
    numBlocks,
    numSwapBlocks: Math.floor(options.swapSpace * 2 ** 30 / blockBytes(layout)),
    maxModelLen: Math.min(wanted, capacityTokens),
  };
}

/** The last part of a directory or hub name. */
function baseName(model: string): string {
  return model.replace(/\/+$/, "").split("/").at(-1)!;
}

function modelNames(profiles: readonly ModelProfile[]): string[] {
  return [...new Set(profiles.map(({ model }) => model))];
}

function builtin(options: SimulationOptions, model: string): ModelProfile {
  const longest = options.maxModelLen ?? DEFAULT_MAX_MODEL_LEN;
  return builtinProfile(options.gpuType, model, blocksKey(options, longest));
}

/** The profile of a model without parallelism: executors have none. */
function findInFile(path: string, model: string): ModelProfile {
  const profiles = readProfileFile(path);
  const sameModel = profiles.filter((profile) =>
    profile.model.toLowerCase() === model.toLowerCase()
  );
  if (sameModel.length === 0) {
    throw new UsageError(
      `The profile ${path} does not have the model ${model}: it has ` +
        `${modelNames(profiles).join(", ")}. Choose one of them by --model.`,
    );
  }
  const found = sameModel.find(({ tensorParallelSize, pipelineParallelSize }) =>
    tensorParallelSize === 1 && pipelineParallelSize === 1
  );
  if (found) return found;
  const degrees = sameModel.map(({ tensorParallelSize: tp, pipelineParallelSize: pp }) =>
    `tp ${tp} pp ${pp}`
  );
  throw new UsageError(
    `The profile ${path} has ${model} with ${degrees.join(", ")}, and not with tp 1 pp 1.`,
  );
}

function blocksKey(options: SimulationOptions, maxModelLen: number): BlocksKey {
  return {
    memoryUtilization: options.gpuMemoryUtilization,
    blockSize: options.blockSize,
    maxBatchedTokens: options.maxNumBatchedTokens ?? Math.max(MIN_BATCHED_TOKENS, maxModelLen),
  };
}

function refuseOptions(options: SimulationOptions, { model, shape }: ModelProfile): void {
  if (options.maxModelLen !== null && options.maxModelLen > shape.maxModelLen) {
    throw new UsageError(
      `--max-model-len ${options.maxModelLen} is more than the ${shape.maxModelLen} tokens of ` +
        `${model} in its profile. Use ${shape.maxModelLen} or less.`,
    );
  }
  const isFloat32 = options.dtype === "float" || options.dtype === "float32";
  if (isFloat32 && dtypeBytes(shape.dtype) !== 4) {
    throw new UsageError(
      `--dtype ${options.dtype}: the profile of ${model} is for ${shape.dtype}. Leave it at auto.`,
    );
  }
}

function numBlocksOf(profile: ModelProfile, key: BlocksKey, name: string): number {
  const found = profile.blocks.find((entry) =>
    entry.blockSize === key.blockSize && entry.memoryUtilization === key.memoryUtilization &&
    (entry.maxBatchedTokens === null || entry.maxBatchedTokens === key.maxBatchedTokens)
  );
  if (found) return found.numBlocks;
  const known = profile.blocks.map((entry) =>
    `${entry.memoryUtilization} / ${entry.blockSize} / ${entry.maxBatchedTokens ?? "any"}`
  );
  throw new UsageError(
    `The profile ${name} does not say how many blocks ${profile.model} has with ` +
      `--gpu-memory-utilization ${key.memoryUtilization}, --block-size ${key.blockSize} and ` +
      `${key.maxBatchedTokens} batched tokens; it does for ${known.join(", ")}. Choose one of ` +
      `these, or set --num-gpu-blocks-override.`,
  );
}
