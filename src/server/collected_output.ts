import type { TextLogprob, TextOutput } from "../frontend/service.ts";
import type { Generation } from "./generation.ts";

/** All output of one prompt. */
export interface CollectedOutput {
  text: string;
  tokenIds: number[];
  logprobs: TextLogprob[];
  promptLogprobs: readonly (TextLogprob | null)[] | null;
  finish: NonNullable<TextOutput["finish"]>;
}

/** Runs the generation to its end; one element per prompt. */
export async function collectOutput(generation: Generation): Promise<CollectedOutput[]> {
  const collected = generation.requests.map((): CollectedOutput => ({
    text: "",
    tokenIds: [],
    logprobs: [],
    promptLogprobs: null,
    finish: { reason: "abort", stopReason: null },
  }));
  await generation.run((index, output) => {
    const sum = collected[index];
    sum.text += output.text;
    for (const id of output.tokenIds) sum.tokenIds.push(id);
    for (const entry of output.logprobs ?? []) sum.logprobs.push(entry);
    sum.promptLogprobs ??= output.promptLogprobs ?? null;
    sum.finish = output.finish ?? sum.finish;
  });
  return collected;
}
