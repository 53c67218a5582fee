/** All kinds of servers. */
import type { Backend } from "./backend.ts";
import { generateBenchmark } from "./generate_benchmark.ts";
import { chat, completions } from "./openai.ts";

/** By value of `--backend`. `vllm` is vLLM's other name of `openai`. */
export const backends: Readonly<Record<string, Backend>> = {
  openai: completions,
  vllm: completions,
  "openai-chat": chat,
  llumnix: generateBenchmark,
};
