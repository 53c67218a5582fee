import type { StepSample } from "./step_log.ts";

/** Steps in the columns of `--log-instance-info` that `readStepLog` needs; those without a meaning are 0. */
export function stepsCsv(steps: readonly StepSample[]): string {
  const header = "timestamp,instance_id,step_id,gpu_cache_usage,num_available_gpu_blocks," +
    "inference_type,bs,profiling_data";
  const rows = steps.map(({ kind, sequences, tokens, latencyMs }, i) => {
    const batched = kind === "prefill" ? tokens : sequences;
    return `0,grid,${i},0,0,${kind},${batched},"('${kind}', ${sequences}, ${tokens}, ${latencyMs})"`;
  });
  return [header, ...rows, ""].join("\n");
}
