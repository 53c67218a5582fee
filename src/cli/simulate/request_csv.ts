/** The requests of all runs as CSV: a line is appended for each request when its run has ended. */
import type { RequestRow } from "../../sim/experiment/request_recorder.ts";
import type { RunResult } from "../../sim/experiment/run_result.ts";

export const requestCsvHeader = [
  ...["configuration", "workload", "seed", "request", "arrival_s", "priority", "output_tokens"],
  ...["ttft_ms", "e2e_ms", "preemption_loss_ms", "failed"],
].join(",") + "\n";

/** Pieces of text of some thousand lines each. */
export function* requestCsv(
  { config, workload, seed }: Pick<RunResult, "config" | "workload" | "seed">,
  requests: Iterable<RequestRow>,
): Generator<string> {
  const run = `${quoted(config)},${quoted(workload)},${seed}`;
  let text = "", index = 0;
  for (const row of requests) {
    const times = [row.ttftMs, row.e2eMs, row.preemptionLossMs]
      .map((ms) => ms === null ? "" : rounded(ms));
    text += `${run},${index},${rounded(row.arrivalMs / 1000)},${row.priority},` +
      `${row.outputTokens},${times.join(",")},${row.hasFailed ? 1 : 0}\n`;
    index++;
    if (index % 4096 === 0) {
      yield text;
      text = "";
    }
  }
  yield text;
}

/** Microseconds are enough. */
function rounded(value: number): string {
  return String(Math.round(value * 1000) / 1000);
}

function quoted(text: string): string {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
