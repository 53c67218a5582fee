/** What the API server needs of a model besides its instances: a tokenizer, and what clients see. */
import { LlumnixError, ModelError, UsageError } from "../core/errors.ts";
import type { ServedSettings } from "../core/protocol/membership.ts";
import type { EngineOptions, ServerOptions } from "../core/options.ts";
import { SEEDED_VOCAB_SIZE } from "../executor/sampling/seeded_sampler.ts";
import { resolveSimulation } from "../executor/sim/simulation.ts";
import type { ServedModel } from "../frontend/service.ts";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../frontend/tokenizer.ts";
import { builtinModel } from "../model/builtin.ts";
import { locateModel, modelIdentity } from "../model/locate.ts";
import { resolveModel } from "../model/resolve.ts";

/** A model that instances will be able to load, or to simulate. */
export interface FoundModel {
  readonly name: string;
  /** See {@linkcode modelIdentity}. */
  readonly identity: string;
  readonly dtype: string;
  /** Where its files are; null when it has none. */
  readonly directory: string | null;
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly eosTokenIds: readonly number[];
  /** What requests get that do not say: generation_config.json's. */
  readonly defaultSampling: ServedModel["defaultSampling"];
  /** Things the user should know. */
  readonly warnings: readonly string[];
}

/**
 * Finds the model of the options; nothing is loaded.
 * @throws {ModelError} not there, not a model, or not supported
 * @throws {UsageError} the options do not fit the model, or the profile that stands for it
 */
export function findModel(options: EngineOptions): FoundModel {
  if (options.device === "sim") return findSimulatedModel(options);
  const { config, ...model } = resolveModel(options);
  return { ...model, vocabSize: config.vocabSize };
}

function findSimulatedModel(options: EngineOptions): FoundModel {
  const { model, layout: { dtype }, maxModelLen } = resolveSimulation(options);
  const directory = directoryOf(model, options);
  const warnings = [`${model} is simulated: its output has no meaning.`];
  if (directory === null && options.tokenizer === null && !options.skipTokenizerInit) {
    warnings.push(`There are no files of ${model}: a token is a byte (built-in tokenizer).`);
  }
  return {
    name: model,
    identity: modelIdentity(model),
    dtype,
    directory,
    vocabSize: SEEDED_VOCAB_SIZE,
    maxModelLen,
    eosTokenIds: [],
    defaultSampling: {},
    warnings,
  };
}

/** What instances of these options serve; null where that cannot be told here: they say why. */
export function servedSettings(options: EngineOptions): ServedSettings | null {
  if (options.device === "null") return null;
  try {
    const { identity: model, dtype, maxModelLen } = findModel(options);
    return { model, dtype, maxModelLen };
  } catch (error) {
    if (error instanceof LlumnixError) return null;
    throw error;
  }
}

/** Where a model's files are; null when the name stands for none. */
function directoryOf(model: string, options: EngineOptions): string | null {
  try {
    return locateModel(model, options);
  } catch (error) {
    if (error instanceof ModelError) return null;
    throw error;
  }
}

/**
 * The tokenizer of `--tokenizer`, else of the model; null with `--skip-tokenizer-init`.
 * @throws {ModelError} there is none, or it cannot be used
 */
export async function openTokenizer(
  options: EngineOptions & Pick<ServerOptions, "chatTemplate">,
  model: FoundModel,
): Promise<Tokenizer | null> {
  if (options.skipTokenizerInit) return null;
  const chatTemplate = readChatTemplate(options.chatTemplate);
  if (options.tokenizer !== null) {
    const { downloadDir, tokenizerRevision: revision } = options;
    const directory = locateModel(options.tokenizer, { downloadDir, revision });
    return await loadTokenizer(directory, chatTemplate);
  }
  if (model.directory !== null) return await loadTokenizer(model.directory, chatTemplate);
  return createTokenizer({ ...builtinModel(), chatTemplate });
}

/** `--chat-template` is a file, or Jinja, which has braces; so vLLM tells them apart as well. */
function readChatTemplate(option: string | null): string | undefined {
  if (option === null) return undefined;
  try {
    return Deno.readTextFileSync(option);
  } catch (cause) {
    if (/[{}]/.test(option)) return option;
    throw new UsageError(
      `--chat-template ${option} is no file that can be read (${
        (cause as Error).message
      }), and no ` +
        "Jinja template, which would have braces",
      { cause },
    );
  }
}

/** Describes the model to clients. */
export function describeModel(
  options: EngineOptions & ServerOptions,
  model: FoundModel,
  tokenizer: Tokenizer | null,
): ServedModel {
  return {
    names: options.servedModelName ?? [model.name],
    maxModelLen: model.maxModelLen,
    createdSeconds: Math.floor(Date.now() / 1000),
    vocabSize: model.vocabSize,
    hasTokenizer: tokenizer !== null,
    defaultSampling: model.defaultSampling,
  };
}
