/** `llumnix simulate`: a workload on simulated clusters, compared. */
import { existsSync } from "node:fs";
import { textTable } from "../../report/text_table.ts";
import { UsageError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import { version } from "../../core/version.ts";
import { type Comparison, finishedPart, runComparison } from "../../sim/experiment/comparison.ts";
import { resultSentence } from "../../sim/experiment/result_sentence.ts";
import { resultsReport } from "../../sim/experiment/results_report.ts";
import { resultsTables } from "../../sim/experiment/results_table.ts";
import { renderReport } from "../../report/html.ts";
import type { RunResult } from "../../sim/experiment/run_result.ts";
import { type Plan, readPlan } from "../simulate/plan.ts";
import { progressDisplay } from "../simulate/progress.ts";
import { requestCsv, requestCsvHeader } from "../simulate/request_csv.ts";

/** In place of a file's name; the tables are left out then. */
const STDOUT = "-";

/**
 * Runs what the command line asks for and prints its figures. Ctrl-C prints and writes those of the
 * runs that have ended.
 * @returns the exit code: 1 when every request of some run failed
 * @throws {UsageError} anything in it that cannot be run, or a file that cannot be written
 */
export async function runSimulate(argv: readonly string[]): Promise<number> {
  const plan = readPlan(argv);
  const { comparison, notices } = plan;
  for (const path of [plan.json, plan.html, plan.csv]) if (path !== null) checkWritable(path);
  for (const { severity, message } of notices) {
    console.error(`llumnix simulate: ${severity}: ${message}`);
  }
  if (plan.csv !== null) write(plan.csv, requestCsvHeader);
  const origin = {
    command: `llumnix simulate ${argv.map(quoted).join(" ")}`,
    version,
    date: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
  };
  const progress = await progressDisplay();
  const ended: RunResult[] = [];
  const stopListening = atSignals((exitCode) => {
    progress.finish();
    const part = finishedPart(comparison, ended);
    if (part === null) Deno.exit(exitCode);
    const numRuns = comparison.clusters.length * comparison.workloads.length *
      comparison.seeds.length;
    console.error(`llumnix simulate: stopped after ${ended.length} of ${numRuns} runs`);
    writeResults({ ...plan, comparison: part.comparison }, part.runs, origin);
    Deno.exit(exitCode);
  });
  try {
    await runComparison(comparison, {
      onProgress: (state) => progress.show(state),
      onRun(result, requests) {
        ended.push(result);
        if (plan.csv === null) return;
        for (const text of requestCsv(result, requests)) write(plan.csv, text, { append: true });
      },
    });
  } finally {
    progress.finish();
    stopListening();
  }
  writeResults(plan, ended, origin);
  const numLost = ended.filter(({ requests, failed }) => failed === requests).length;
  if (numLost === 0) return 0;
  console.error(
    `llumnix simulate: error: every request failed in ${numLost} of ${ended.length} runs`,
  );
  return 1;
}

/** Where the results come from. */
interface Origin {
  readonly command: string;
  readonly version: string;
  readonly date: string;
}

function writeResults(
  { comparison, written, json, html }: Plan,
  runs: readonly RunResult[],
  origin: Origin,
): void {
  if (json !== STDOUT && html !== STDOUT) printTables(comparison, runs);
  for (const run of runs) if (run.failed > 0) console.error(failureText(run));
  if (json !== null) {
    const record = { ...origin, comparison: comparisonRecord(comparison), runs };
    write(json, `${JSON.stringify(record)}\n`);
  }
  if (html !== null) {
    write(html, renderReport(resultsReport(comparison, runs, { written, ...origin })));
  }
}

/** Calls back, with the exit code, when the program is asked to end. @returns stops listening */
function atSignals(end: (exitCode: number) => void): () => void {
  const signals = [["SIGHUP", 1], ["SIGINT", 2], ["SIGTERM", 15]] as const;
  const listeners = signals.map(([signal, number]) => {
    const listener = () => end(128 + number);
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  return () => listeners.forEach((stop) => stop());
}

/** As a shell needs it. */
function quoted(word: string): string {
  return /^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function printTables(comparison: Comparison, runs: readonly RunResult[]): void {
  console.log(`${comparison.title}\n${seedsText(comparison.seeds)}`);
  for (const { workload, header, rows } of resultsTables(comparison, runs)) {
    const requests = requestsText(comparison, runs, workload);
    console.log(`\n${workload}, ${requests}\n${textTable(header, rows)}`);
  }
  console.log(`\n${resultSentence(comparison, runs)}\n${speedText(runs)}`);
}

function seedsText(seeds: readonly number[]): string {
  if (seeds.length === 1) return `seed ${seeds[0]}`;
  return `seeds ${seeds[0]} to ${seeds.at(-1)}: mean ± standard deviation; factors: mean (least ` +
    "to greatest), more than 1x is better";
}

/** All runs of a workload have the same number. */
function requestsText({ workloads }: Comparison, runs: readonly RunResult[], name: string): string {
  const { requests } = runs.find(({ workload }) => workload === name)!;
  const wanted = workloads.find((workload) => workload.name === name)!.numRequests;
  const isFewer = wanted !== null && requests < wanted;
  return `${requests} request${requests === 1 ? "" : "s"} a run` +
    (isFewer ? `: the trace has no more, ${wanted} were asked for` : "");
}

function speedText(runs: readonly RunResult[]): string {
  const sum = (valueOf: (run: RunResult) => number) =>
    runs.reduce((total, run) => total + valueOf(run), 0);
  const simulated = sum((run) => run.simulatedSeconds), wall = sum((run) => run.wallSeconds);
  const steps = sum((run) => run.engineSteps);
  return `${simulated.toFixed(0)} s simulated in ${wall.toFixed(1)} s, ` +
    `${(simulated / wall).toFixed(0)} times faster than real time ` +
    `(${(steps / wall / 1000).toFixed(0)} thousand engine steps per second)`;
}

function failureText({ workload, config, seed, requests, failed, failures }: RunResult): string {
  return `${workload}, ${config}, seed ${seed}: ${failed} of ${requests} requests failed, such as ` +
    failures[0];
}

/** The JSON of a comparison: every option of a cluster once. */
function comparisonRecord({ clusters, ...rest }: Comparison) {
  return {
    ...rest,
    clusters: clusters.map(({ name, ...parts }) => ({
      name,
      options: {
        ...parts.engine,
        ...parts.manager,
        ...parts.migration,
        ...parts.transfer,
        ...parts.scaling,
        ignorePriorities: parts.ignorePriorities,
      },
    })),
  };
}

/** Checked before a long simulation, whose results would be lost. An existing file is left as it is. */
function checkWritable(path: string): void {
  if (path === STDOUT) return;
  const isThere = existsSync(path);
  write(path, "", { append: true });
  if (!isThere) Deno.removeSync(path);
}

function write(path: string, text: string, options?: Deno.WriteFileOptions): void {
  if (path === STDOUT) return console.log(text.trimEnd());
  try {
    Deno.writeTextFileSync(path, text, options);
  } catch (error) {
    throw new UsageError(`cannot write ${path}: ${fileProblem(error)}`);
  }
}
