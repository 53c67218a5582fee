/** What the API server needs of a model besides its instances: a tokenizer, and what clients see. */
import type { EngineOptions, ServerOptions } from "../core/options.ts";
import type { ServedModel } from "../frontend/service.ts";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../frontend/tokenizer.ts";
import { builtinModel } from "../model/builtin.ts";
import { locateModel } from "../model/locate.ts";
import type { ResolvedModel } from "../model/resolve.ts";

/**
 * The tokenizer of `--tokenizer`, else of the model; null with `--skip-tokenizer-init`.
 * @throws {ModelError} there is none, or it cannot be used
 */
export async function openTokenizer(
  options: EngineOptions,
  model: ResolvedModel,
): Promise<Tokenizer | null> {
  if (options.skipTokenizerInit) return null;
  if (options.tokenizer !== null) {
    const { downloadDir, tokenizerRevision: revision } = options;
    return await loadTokenizer(locateModel(options.tokenizer, { downloadDir, revision }));
  }
  if (model.directory !== null) return await loadTokenizer(model.directory);
  return createTokenizer(builtinModel());
}

/** Describes the model to clients. */
export function describeModel(
  options: EngineOptions & ServerOptions,
  model: ResolvedModel,
  tokenizer: Tokenizer | null,
): ServedModel {
  return {
    names: options.servedModelName ?? [model.name],
    maxModelLen: model.maxModelLen,
    createdSeconds: Math.floor(Date.now() / 1000),
    vocabSize: model.config.vocabSize,
    hasTokenizer: tokenizer !== null,
    hasChatTemplate: tokenizer?.chatTemplate != null,
    // vLLM 0.4.2 takes nothing but the end tokens from generation_config.json.
    defaultSampling: {},
  };
}
