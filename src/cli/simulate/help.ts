/** What help of `llumnix simulate` says of the files that it reads. */
import { toProfileJson } from "../../executor/sim/profile_file.ts";
import { builtinProfile } from "../../executor/sim/roofline.ts";
import { wrap } from "../help.ts";

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
