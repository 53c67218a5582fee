import { streamOf } from "../../workload/generate.ts";
import type { Dataset } from "./dataset.ts";

/** Random words. Lengths are uniform within the range ratio, as in vLLM's `RandomDataset`. */
export const random: Dataset = {
  name: "random",
  needsFile: false,
  hasTimes: false,
  load({ numPrompts, seed, random: lengths, prompts }) {
    const { inputTokens, outputTokens, rangeRatio, prefixTokens } = lengths;
    const promptRandom = streamOf(seed, "prompts"), outputRandom = streamOf(seed, "outputs");
    const textRandom = streamOf(seed, "texts");
    const prefix = prefixTokens === 0 ? "" : prompts.text(prefixTokens, textRandom);
    const draw = (mean: number, random: typeof promptRandom) => {
      const low = Math.max(1, Math.floor(mean * (1 - rangeRatio)));
      const high = Math.max(1, Math.ceil(mean * (1 + rangeRatio)));
      return low + random.below(high - low + 1);
    };
    const requests = Array.from({ length: numPrompts }, () => {
      const tokens = draw(inputTokens, promptRandom);
      const prompt = prefix === ""
        ? prompts.text(tokens, textRandom)
        : `${prefix} ${prompts.words(tokens, textRandom)}`;
      return {
        prompt,
        promptTokens: prefixTokens + tokens,
        outputTokens: draw(outputTokens, outputRandom),
        recordedMs: null,
        priority: null,
      };
    });
    return Promise.resolve(requests);
  },
};
