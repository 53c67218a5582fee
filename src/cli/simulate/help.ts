/** Help of `llumnix simulate` on its figures and on profiles. */
import { toProfileJson } from "../../executor/sim/profile_file.ts";
import { builtinProfile } from "../../executor/sim/roofline.ts";
import { wrap } from "../help.ts";

/** The meaning of the rows of the tables. */
export function figuresHelp(width: number): string {
  const text =
    "Figures: TTFT is the time from a request's arrival to its first token, end-to-end to " +
    "its last. TPOT is the time per output token after the first, a value per request; ITL is the " +
    "time between two tokens of a request, a value per token. Preemption loss is the time that " +
    "preemptions cost a request, from losing its KV blocks until it has them again, a value per " +
    "request. Downtime is how long a migrating request makes no progress. Utilisation is the share " +
    "of all KV blocks that is in use. Fragmentation is the share of all KV blocks that is free but " +
    "spread over instances: the blocks that the requests at the heads of the queues need, smallest " +
    "request first, as far as all free blocks together would suffice. Instance-seconds are the time " +
    "that each instance exists, summed over the instances.";
  return wrap(text, width, "");
}

/** The form of a profile, with an example that works. */
export function profileHelp(width: number): string {
  const introduction =
    "A profile (--profiling-result-file-path) is JSON. The example below is the built-in profile of " +
    "llama-7b on an a10. The time of a step in milliseconds is ms_per_step, plus a time for each " +
    "token of the prompts or of all contexts, plus a time for each sequence. blocks has an entry for " +
    "each setting of the instances (max_batched_tokens null: any); gbps is 10^9 bytes per second. " +
    "source may name the origin of the numbers. source, tensor_parallel_size and " +
    "pipeline_parallel_size are optional.";
  const example = toProfileJson([builtinProfile("a10", "llama-7b")]);
  return `${wrap(introduction, width, "")}\n\n${JSON.stringify(example, null, 2)}`;
}
