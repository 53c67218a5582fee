/** Help of `llumnix simulate` on its figures and on profiles. */
import { toProfileJson } from "../../executor/sim/profile_file.ts";
import { builtinProfile } from "../../executor/sim/roofline.ts";
import { notesText, wrap } from "../help.ts";

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

/** What runs, and command lines to begin with. */
export function examplesHelp(width: number): string {
  return notesText(
    [
      "The clusters run the production manager, schedulers and migrations; only the devices and the time " +
      "are simulated. The same seed gives the same figures. Several clusters, rates or seeds become " +
      "columns, tables and means. Ctrl-C prints what has ended so far.",
    ],
    [
      "# the paper's cluster where it begins to queue: Llumnix against three baselines",
      "llumnix simulate --preset osdi24-serving --lengths m-m --rate 9.5 --html report.html",
      "# two policies of your own, on four instances",
      "llumnix simulate --instances 4 --lengths m-m --rate 2 --requests 2000 --name migration \\",
      '  --enable-migration --compare "none: --enable-migration=false"',
      "# requests that llumnix bench --save-trace recorded",
      "llumnix simulate --trace load.jsonl --instances 4",
    ],
    width,
  );
}

/** The form of a profile, with an example that works. */
export function profileHelp(width: number): string {
  const introduction =
    "A profile (--profiling-result-file-path) is JSON. The example below is the built-in profile of " +
    "llama-7b on an a10. The time of a step in milliseconds is ms_per_step, plus a time for each " +
    "token of the prompts or of all contexts, plus a time for each sequence. blocks has an entry for " +
    "each setting of the instances (max_batched_tokens null: any); gbps is 10^9 bytes per second. " +
    "source may name the origin of the numbers. source, tensor_parallel_size and " +
    "pipeline_parallel_size are optional, and so is request: {ms_per_request}, the time that each " +
    "request takes outside of the instance. llumnix profile makes such files.";
  const example = toProfileJson([builtinProfile("a10", "llama-7b")]);
  return `${wrap(introduction, width, "")}\n\n${JSON.stringify(example, null, 2)}`;
}
