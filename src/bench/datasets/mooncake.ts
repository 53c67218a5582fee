import * as z from "zod";
import { Random } from "../../core/random.ts";
import { linesOf } from "../../workload/text_file.ts";
import { badRow, parseJson, parseRow } from "../../workload/trace_file.ts";
import { chooseRows, type Dataset } from "./dataset.ts";
import type { PromptMaker } from "./prompt_maker.ts";

/** Tokens that a hash stands for (Mooncake's trace, FAST'25). */
const BLOCK_TOKENS = 512;
/** Longest prompt that is accepted. */
const MAX_TOKENS = 4 << 20;

// The message of each schema says what its field must be.
const MS = "a number of milliseconds, 0 or more";
const TOKENS = "a number of tokens, 1 or more";
const HASHES = "a list of whole numbers, 0 or more";
const tokens = z.int(TOKENS).positive(TOKENS).max(MAX_TOKENS, `at most ${MAX_TOKENS} tokens`);
const rowSchema = z.object({
  timestamp: z.number(MS).nonnegative(MS),
  input_length: tokens,
  output_length: tokens,
  hash_ids: z.array(z.int(HASHES).nonnegative(HASHES), HASHES),
});
type Row = z.infer<typeof rowSchema>;

/** Mooncake's traces. Equal hashes become equal blocks of text, so that prompts share their prefixes as recorded. */
export const mooncake: Dataset = {
  name: "mooncake",
  needsFile: true,
  hasTimes: true,
  load(options) {
    const { path, seed, prompts, outputTokens } = options;
    const rows: Row[] = [];
    for (const piece of linesOf(path!)) {
      const row = parseRow(path!, piece.number, rowSchema, parseJson(path!, piece));
      const blocks = Math.ceil(row.input_length / BLOCK_TOKENS);
      if (row.hash_ids.length !== blocks) {
        const problem = `hash_ids has ${row.hash_ids.length} entries, expected ${blocks} for ` +
          `input_length ${row.input_length} (one per ${BLOCK_TOKENS} tokens)`;
        throw badRow(path!, piece.number, problem);
      }
      if (row.timestamp < (rows.at(-1)?.timestamp ?? 0)) {
        throw badRow(path!, piece.number, "its timestamp is before that of the row above");
      }
      rows.push(row);
    }
    const startMs = rows[0]?.timestamp ?? 0;
    return Promise.resolve(
      chooseRows(rows, options).map((row) => ({
        prompt: promptOf(row, prompts, seed),
        promptTokens: row.input_length,
        outputTokens: outputTokens ?? row.output_length,
        recordedMs: row.timestamp - startMs,
        priority: null,
      })),
    );
  },
};

function promptOf({ input_length, hash_ids }: Row, prompts: PromptMaker, seed: number): string {
  const blocks = hash_ids.map((id, i) => {
    const tokens = Math.min(BLOCK_TOKENS, input_length - i * BLOCK_TOKENS);
    const random = new Random(seed * 2 ** 21 + id);
    return i === 0 ? prompts.text(tokens, random) : prompts.words(tokens, random);
  });
  return blocks.join(" ");
}
