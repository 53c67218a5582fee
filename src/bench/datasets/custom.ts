import * as z from "zod";
import { UsageError } from "../../core/errors.ts";
import { linesOf } from "../../workload/text_file.ts";
import { parseJson, parseRow } from "../../workload/trace_file.ts";
import { chooseRows, type Dataset } from "./dataset.ts";

// The message of each schema says what its field must be.
const PROMPT = "text that is not empty";
const TOKENS = "a number of tokens, 1 or more";
const rowSchema = z.object({
  prompt: z.string(PROMPT).min(1, PROMPT),
  output_tokens: z.int(TOKENS).positive(TOKENS).optional(),
  priority: z.enum(["high", "normal"], "high or normal").optional(),
});

/** Texts of the user's own: JSONL with `prompt`, and `output_tokens` and `priority` if wanted. */
export const custom: Dataset = {
  name: "custom",
  needsFile: true,
  hasTimes: false,
  async load(options) {
    const { path, counter, outputTokens } = options;
    if (!path!.endsWith(".jsonl")) {
      throw new UsageError(
        `The dataset ${path} is not JSONL: expected a name that ends in .jsonl.`,
      );
    }
    const rows = [...linesOf(path!)].map((piece) =>
      parseRow(path!, piece.number, rowSchema, parseJson(path!, piece))
    );
    const requests = [];
    for (const row of chooseRows(rows, options)) {
      requests.push({
        prompt: row.prompt,
        promptTokens: await counter.count(row.prompt),
        outputTokens: row.output_tokens ?? outputTokens ?? DEFAULT_OUTPUT_TOKENS,
        recordedMs: null,
        priority: row.priority ?? null,
      });
    }
    return requests;
  },
};

/** vLLM's `--custom-output-len`. */
const DEFAULT_OUTPUT_TOKENS = 256;
