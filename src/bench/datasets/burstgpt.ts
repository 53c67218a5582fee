import { streamOf } from "../../workload/generate.ts";
import { leftOutText, readTrace } from "../../workload/trace_file.ts";
import { chooseRows, type Dataset } from "./dataset.ts";

/** vLLM's benchmark uses the requests to this model only. */
const MODEL = "GPT-4";

/** The lengths, and the times, of BurstGPT's CSV, with random words. */
export const burstgpt: Dataset = {
  name: "burstgpt",
  needsFile: true,
  hasTimes: true,
  load(options) {
    const { path, seed, prompts, outputTokens, onNotice } = options;
    const leftOut = new Map<string, number>();
    const rows = [...readTrace(path!, {
      burstGptModel: MODEL,
      onLeftOut: (why) => leftOut.set(why, (leftOut.get(why) ?? 0) + 1),
    })];
    for (const [why, count] of leftOut) onNotice(`${path}: ${leftOutText(count, why)}`);
    const random = streamOf(seed, "texts");
    return Promise.resolve(
      chooseRows(rows, options).map((row) => ({
        prompt: prompts.text(row.promptTokens, random),
        promptTokens: row.promptTokens,
        outputTokens: outputTokens ?? row.outputTokens,
        recordedMs: row.arrivalMs,
        priority: null,
      })),
    );
  },
};
