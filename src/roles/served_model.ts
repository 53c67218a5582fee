/** The API server's part of a model: its tokenizer, and its description for clients. */
import { LlumnixError, UsageError } from "../core/errors.ts";
import { fileProblem } from "../core/file_problem.ts";
import type { ServedSettings } from "../core/protocol/membership.ts";
import type { EngineOptions, ServerOptions } from "../core/options.ts";
import { executorKind } from "../executor/devices.ts";
import type { FoundModel } from "../executor/executor_kind.ts";
import type { ServedModel } from "../frontend/service.ts";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../frontend/tokenizer.ts";
import { tinyModel } from "../model/builtin.ts";
import { locateModel } from "../model/locate.ts";

/**
 * Finds the model of the options; loads nothing.
 * @throws {ModelError} the model is missing, damaged or not supported
 * @throws {UsageError} the options do not fit the model, or the profile that simulates it
 */
export async function findModel(options: EngineOptions): Promise<FoundModel> {
  return await executorKind(options.device).find(options);
}

/** What instances of these options will register; null if only they can tell, or fail with the reason. */
export async function servedSettings(options: EngineOptions): Promise<ServedSettings | null> {
  try {
    return (await findModel(options)).served;
  } catch (error) {
    if (error instanceof LlumnixError) return null;
    throw error;
  }
}

/**
 * The tokenizer of `--tokenizer`, else of the model; null with `--skip-tokenizer-init`.
 * @throws {ModelError} the tokenizer is missing or cannot be used
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
  return createTokenizer({ ...tinyModel(), chatTemplate });
}

/** `--chat-template` is a file, or Jinja, which has braces; so vLLM tells them apart as well. */
function readChatTemplate(option: string | null): string | undefined {
  if (option === null) return undefined;
  try {
    return Deno.readTextFileSync(option);
  } catch (cause) {
    if (/[{}]/.test(option)) return option;
    throw new UsageError(
      `--chat-template ${option}: expected a file, or a Jinja template, which has braces; the file ` +
        `cannot be read: ${fileProblem(cause)}`,
      { cause },
    );
  }
}

/** The model's name for clients, where its files need not be read. */
export async function modelName(
  options: EngineOptions & Pick<ServerOptions, "servedModelName">,
): Promise<string> {
  if (options.servedModelName) return options.servedModelName[0];
  try {
    return (await findModel(options)).name;
  } catch {
    return options.model ?? ""; // instances will say what is wrong with it
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
