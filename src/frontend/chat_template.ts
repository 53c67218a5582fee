import { Template } from "@huggingface/jinja";
import { ModelError, RequestError } from "../core/errors.ts";
import { rewriteStripCalls, stripFunctions } from "./jinja_strip.ts";
import type { ChatMessage } from "./service.ts";

/**
 * Picks the chat template of tokenizer_config.json. Its field `chat_template` is a text, or a list of named
 * templates, of which "default" is used, as in transformers.
 * @returns null if there is none
 * @throws {ModelError} the field has another form
 */
export function selectChatTemplate(chatTemplate: unknown): string | null {
  if (chatTemplate === undefined || chatTemplate === null) return null;
  if (typeof chatTemplate === "string") return chatTemplate;
  if (Array.isArray(chatTemplate)) {
    const chosen = chatTemplate.find((entry) => entry?.name === "default");
    if (typeof chosen?.template === "string") return chosen.template;
    const names = chatTemplate.map((entry) => entry?.name).join(", ");
    throw new ModelError(
      `tokenizer_config.json has the chat templates ${names}; one named default is needed.`,
    );
  }
  throw new ModelError(
    "chat_template of tokenizer_config.json must be a text or a list of named templates.",
  );
}

/** Renders the messages of a chat to the prompt that the model was trained on. */
export class ChatTemplate {
  readonly #template: Template;

  /**
   * @param source Jinja
   * @param specialTokens `bos_token` and so on
   * @param name what errors call the template
   * @throws {ModelError} a syntax error
   */
  constructor(
    source: string,
    private readonly specialTokens: Readonly<Record<string, string>>,
    name = "The chat template",
  ) {
    try {
      this.#template = new Template(source);
      rewriteStripCalls(this.#template);
    } catch (error) {
      throw new ModelError(`${name} cannot be used: ${(error as Error).message}.`, {
        cause: error,
      });
    }
  }

  /**
   * The prompt, with all special tokens: encode it without adding any.
   * @param templateArguments further variables of the template
   * @throws {RequestError} the template refuses the messages
   */
  render(
    messages: readonly ChatMessage[],
    addGenerationPrompt: boolean,
    templateArguments: Readonly<Record<string, unknown>> = {},
  ): string {
    try {
      return this.#template.render({
        ...templateArguments,
        ...stripFunctions,
        ...this.specialTokens,
        messages,
        add_generation_prompt: addGenerationPrompt,
      });
    } catch (error) {
      throw new RequestError(
        `The model's chat template refuses these messages: ${(error as Error).message}`,
        "messages",
        { cause: error },
      );
    }
  }
}
