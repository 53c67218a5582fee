/** A row for each request: figures as CSV, and the load as a trace. */
import { e2elMs, tpotMs, ttftMs } from "../summary.ts";
import type { RunResult } from "../run.ts";

type Cell = string | number | null;
type Column = (result: RunResult, index: number) => Cell;

const round = (value: number) => Number.isFinite(value) ? Math.round(value * 1000) / 1000 : null;
const seconds = (ms: number, { startMs }: RunResult) => round((ms - startMs) / 1000);

/** Times are seconds after the start. Cells of what a request has not are empty. */
const columns: Readonly<Record<string, Column>> = {
  request: (_, i) => i,
  planned_s: (result, i) => seconds(result.records[i].plannedMs, result),
  due_s: (result, i) => seconds(result.records[i].dueMs, result),
  sent_s: (result, i) => seconds(result.records[i].sentMs, result),
  end_s: (result, i) => seconds(result.records[i].endMs, result),
  ttft_ms: ({ records }, i) => round(ttftMs(records[i])),
  tpot_ms: ({ records }, i) => records[i].outputTokens > 1 ? round(tpotMs(records[i])) : null,
  e2el_ms: ({ records }, i) => round(e2elMs(records[i])),
  longest_itl_ms: ({ records }, i) =>
    records[i].gapsMs.length === 0
      ? null
      : round(records[i].gapsMs.reduce((most, ms) => Math.max(most, ms), 0)),
  prompt_tokens: ({ records, requests }, i) => records[i].promptTokens ?? requests[i].promptTokens,
  output_tokens: ({ records }, i) => records[i].outputTokens,
  priority: ({ requests }, i) => requests[i].priority,
  error: ({ records }, i) => records[i].failure,
};

export function resultCsv(result: RunResult): string {
  const rows = result.records.map((_, i) =>
    Object.values(columns).map((column) => shown(column(result, i))).join(",")
  );
  return [Object.keys(columns).join(","), ...rows, ""].join("\n");
}

/** The completed requests as a trace of this program (JSONL; times in seconds). */
export function resultTrace({ records, requests, startMs }: RunResult): string {
  const rows = records.flatMap(({ failure, plannedMs, promptTokens, outputTokens }, i) => {
    if (failure !== null) return [];
    const { promptTokens: planned, priority } = requests[i];
    return [JSON.stringify({
      time: round((plannedMs - startMs) / 1000),
      prompt_tokens: promptTokens ?? planned,
      output_tokens: outputTokens,
      priority,
    })];
  });
  return rows.map((row) => `${row}\n`).join("");
}

function shown(cell: Cell): string {
  const text = cell === null ? "" : String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
