import { servedType } from "../core/dtype.ts";
import type { EngineOptions } from "../core/options.ts";
import { resolveModel } from "../model/resolve.ts";
import type { FoundModel } from "./executor_kind.ts";

/**
 * Finds a model by its files, for devices that compute it.
 * @throws {ModelError} not there, not a model, or not supported
 * @throws {UsageError} the options do not fit the model
 */
export function findModelFiles(options: EngineOptions): FoundModel {
  const { config, identity, dtype, ...model } = resolveModel(options);
  const { maxModelLen } = model;
  const served = { model: identity, dtype: servedType(dtype, options.quantization), maxModelLen };
  return { ...model, vocabSize: config.vocabSize, served };
}
