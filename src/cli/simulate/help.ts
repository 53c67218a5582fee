/** What help of `llumnix simulate` says of its figures, and of the files that it reads. */
import { toProfileJson } from "../../executor/sim/profile_file.ts";
import { builtinProfile } from "../../executor/sim/roofline.ts";
import { wrap } from "../help.ts";

/** What the rows of the tables are. */
export function figuresHelp(width: number): string {
  const text =
    "Figures: TTFT is the time from a request's arrival to its first token, end-to-end to " +
    "its last. TPOT is the time per output token after the first, a value per request; ITL is the " +
    "time between two tokens of a request, a value per token. Preemption loss is the time that " +
    "preemptions cost a request, from losing its KV blocks until it has them again, a value per " +
    "request. Downtime is how long a request that migrates stands still. Utilisation is the share " +
    "of all KV blocks that is in use. Fragmentation is the share that is free and of no use: what " +
    "requests at the heads of the queues wait for, the smallest first, as far as the free blocks of " +
    "all instances together would do for it. Instance-seconds are the time that instances are " +
    "there, summed over them.";
  return wrap(text, width, "");
}

/** The form of a profile, by one that works. */
export function profileHelp(width: number): string {
  const introduction =
    "A profile (--profiling-result-file-path) is JSON such as this, which is what is built in for " +
    "llama-7b on an a10. A step takes ms_per_step and what comes for each token, of the prompts or " +
    "of all contexts, and for each sequence, in milliseconds. blocks has an entry for each setting " +
    "with which instances run (max_batched_tokens null: any), gbps is 10^9 bytes per second. " +
    "source may say where numbers come from; source, tensor_parallel_size and " +
    "pipeline_parallel_size may be left out.";
  const example = toProfileJson([builtinProfile("a10", "llama-7b")]);
  return `${wrap(introduction, width, "")}\n\n${JSON.stringify(example, null, 2)}`;
}
