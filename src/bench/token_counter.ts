/** Counts the tokens of texts, so that prompts get the lengths that were asked for. */
import { estimateTokens } from "../workload/trace_file.ts";
import type { Target } from "./target.ts";

export interface TokenCounter {
  /** For people: who counts. */
  readonly name: string;
  /** False for an estimate. */
  readonly isExact: boolean;
  count(text: string): Promise<number>;
}

/** For servers that do not count: four characters to a token. */
export const estimate: TokenCounter = {
  name: "an estimate of four characters to a token",
  isExact: false,
  count: (text) => Promise.resolve(estimateTokens(text)),
};

/** Asks the route `/tokenize`, which vLLM and this program have; null if the server has none. */
export async function serverCounter(
  target: Target,
  model: string | null,
): Promise<TokenCounter | null> {
  const counter: TokenCounter = {
    name: "the server's /tokenize",
    isExact: true,
    async count(prompt) {
      const body = model === null ? { prompt } : { model, prompt };
      const { count } = await target.json("POST", "/tokenize", body) as { count?: unknown };
      if (typeof count !== "number") throw new Error("/tokenize answers without a count");
      return count;
    },
  };
  try {
    await counter.count("a");
    return counter;
  } catch {
    return null;
  }
}
