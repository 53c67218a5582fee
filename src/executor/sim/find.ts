import { ModelError } from "../../core/errors.ts";
import type { EngineOptions } from "../../core/options.ts";
import { locateModel, modelIdentity } from "../../model/locate.ts";
import type { FoundModel } from "../executor_kind.ts";
import { SEEDED_VOCAB_SIZE } from "../sampling/seeded_sampler.ts";
import { resolveSimulation } from "./simulation.ts";

/**
 * Finds the model of a simulation. Its files need not be there: they only give it a tokenizer.
 * @throws {UsageError} no such profile, or options that do not fit it
 */
export function findSimulatedModel(options: EngineOptions): FoundModel {
  const { model, layout: { dtype }, maxModelLen } = resolveSimulation(options);
  const directory = directoryOf(model, options);
  const warnings = [`${model} is simulated: its output has no meaning.`];
  if (directory === null && options.tokenizer === null && !options.skipTokenizerInit) {
    warnings.push(`There are no files of ${model}: a token is a byte (built-in tokenizer).`);
  }
  return {
    name: model,
    served: { model: modelIdentity(model), dtype, maxModelLen },
    directory,
    vocabSize: SEEDED_VOCAB_SIZE,
    maxModelLen,
    eosTokenIds: [],
    defaultSampling: {},
    warnings,
  };
}

/** The directory of a model's files; null when the name stands for none. */
function directoryOf(model: string, options: EngineOptions): string | null {
  try {
    return locateModel(model, options);
  } catch (error) {
    if (error instanceof ModelError) return null;
    throw error;
  }
}
