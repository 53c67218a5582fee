import { UsageError } from "../../core/errors.ts";
import { arrayEntriesOf } from "../../workload/text_file.ts";
import { type Conversation, parseConversation } from "../../workload/trace_file.ts";
import type { DatasetRequest } from "../load_request.ts";
import { chooseRows, type Dataset, type DatasetOptions } from "./dataset.ts";

/** vLLM's limits (`is_valid_sequence`), in tokens. */
const MIN_TOKENS = 4, MAX_PROMPT_TOKENS = 1024, MAX_TOTAL_TOKENS = 2048;
/** Texts that are counted at once. */
const BATCH = 64;

/** First questions of conversations, with answers as long as those recorded. */
export const sharegpt: Dataset = {
  name: "sharegpt",
  needsFile: true,
  hasTimes: false,
  async load(options) {
    const { path, numPrompts, oversample } = options;
    const conversations: Conversation[] = [];
    for (const piece of arrayEntriesOf(path!)) {
      const conversation = parseConversation(path!, piece);
      if (typeof conversation !== "string") conversations.push(conversation);
    }
    const ordered = chooseRows(conversations, {
      ...options,
      numPrompts: conversations.length || 1,
    });
    const requests: DatasetRequest[] = [];
    for (let at = 0; at < ordered.length && requests.length < numPrompts; at += BATCH) {
      const batch = await Promise.all(
        ordered.slice(at, at + BATCH).map((conversation) => requestOf(conversation, options)),
      );
      requests.push(...batch.filter((request) => request !== null));
    }
    if (requests.length === 0) {
      throw new UsageError(
        `The dataset ${path} has no conversation of ${MIN_TOKENS} to ${MAX_PROMPT_TOKENS} prompt ` +
          `tokens and at most ${MAX_TOTAL_TOKENS} tokens in all.`,
      );
    }
    return chooseRows(requests, { ...options, shuffle: false, oversample });
  },
};

/** Null for a conversation that vLLM would leave out. */
async function requestOf(
  { question, answer }: Conversation,
  { counter, outputTokens }: DatasetOptions,
): Promise<DatasetRequest | null> {
  const prompt = await counter.count(question);
  const output = outputTokens ?? await counter.count(answer);
  const isTooShort = prompt < MIN_TOKENS || outputTokens === null && output < MIN_TOKENS;
  if (isTooShort || prompt > MAX_PROMPT_TOKENS || prompt + output > MAX_TOTAL_TOKENS) return null;
  return {
    prompt: question,
    promptTokens: prompt,
    outputTokens: output,
    recordedMs: null,
    priority: null,
  };
}
