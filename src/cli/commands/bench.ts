/** `llumnix bench`: measures a server under load, or compares two. */
import type { LoadRequest } from "../../bench/load_request.ts";
import {
  compareRuns,
  type ComparisonTable,
  comparisonTable,
  markedTable,
} from "../../bench/results/comparison.ts";
import { resultCsv, resultTrace } from "../../bench/results/csv.ts";
import { type NamedRun, resultReport } from "../../bench/results/html.ts";
import { comparisonSentence, runSentence } from "../../bench/results/sentence.ts";
import { type ResultIdentity, resultJson } from "../../bench/results/json.ts";
import { remarks, resultText } from "../../bench/results/text.ts";
import { fileProblem } from "../../core/file_problem.ts";
import { checkWritable } from "../../core/files.ts";
import { UsageError } from "../../core/errors.ts";
import { version } from "../../core/version.ts";
import { renderReport } from "../../report/html.ts";
import { textTable } from "../../report/text_table.ts";
import { type BenchPlan, readPlan } from "../bench/plan.ts";
import { type ServerSpec, startServer } from "../bench/server.ts";
import {
  headersOf,
  isServing,
  makeRequests,
  measure,
  openSession,
  type Session,
} from "../bench/session.ts";

/** Exit code of a program that Ctrl-C ended. */
const INTERRUPTED = 130;

/**
 * Runs what the command line asks for and prints its figures.
 * @returns the exit code: 1 if every request of a run failed, 130 after Ctrl-C
 * @throws {LlumnixError} a wrong command line or dataset, a server that does not answer or start
 */
export async function runBench(argv: readonly string[]): Promise<number> {
  const plan = readPlan(argv);
  const { csv, html, saveTrace } = plan.options;
  for (const path of [csv, html, saveTrace]) if (path !== null) checkWritable(path);
  for (const warning of plan.warnings) notice(`warning: ${warning}`);
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  const runs = plan.servers.length === 1
    ? await runOne(plan, signal)
    : await runComparison(plan, signal);
  writeFiles(plan, runs, argv);
  if (signal.aborted) return INTERRUPTED;
  const lost = runs.filter(({ result: { summary } }) => summary.completed === 0);
  if (lost.length === 0) return 0;
  console.error("llumnix bench: error: every request failed");
  return 1;
}

async function runOne(plan: BenchPlan, signal: AbortSignal): Promise<Measured[]> {
  const [spec] = plan.servers;
  const run = await withServer(plan, spec, signal, async (session) => {
    const requests = await makeRequests(plan, session, notice);
    notice(`${requests.length} requests to ${session.spec.baseUrl.href}, model ${session.model}`);
    const result = await measure(plan, session, requests, signal, "");
    return { name: "this server", result, session, server: 0 };
  });
  console.log(resultText(run.result, plan.shown));
  for (const remark of remarks(run.result)) console.log(remark);
  return [run];
}

async function runComparison(plan: BenchPlan, signal: AbortSignal): Promise<Measured[]> {
  const { options: { rounds }, servers } = plan;
  const runs: Measured[] = [];
  let requests: LoadRequest[] | null = null;
  for (let round = 1; round <= rounds && !signal.aborted; round++) {
    // Each server is first in half of the rounds, so that a drift of the machine's speed favours none.
    const turns = [...servers.entries()];
    if (round % 2 === 0) turns.reverse();
    for (const [i, spec] of turns) {
      if (signal.aborted) break;
      const name = `${"AB"[i]}${rounds === 1 ? "" : round}`;
      runs.push(
        await withServer(plan, spec, signal, async (session) => {
          requests ??= await makeRequests(plan, session, notice);
          const result = await measure(plan, session, requests, signal, `${name} `);
          return { name, result, session, server: i };
        }),
      );
      for (const remark of remarks(runs.at(-1)!.result)) console.error(`${name}: ${remark}`);
    }
  }
  servers.forEach(({ name }, i) => console.log(`${"AB"[i]}: ${name}`));
  const table = tableOf(plan, runs);
  if (table !== null) console.log(textTable(table.header, table.rows));
  return runs;
}

function tableOf(plan: BenchPlan, runs: readonly Measured[]): ComparisonTable | null {
  const compared = comparisonOf(plan, runs);
  return compared === null ? null : comparisonTable(compared.figures, compared.numRounds);
}

/** The comparison of two servers over the rounds that both have; null if there is none. */
function comparisonOf({ shown, servers }: BenchPlan, runs: readonly Measured[]) {
  const [a, b] = servers.map((_, i) =>
    runs.filter(({ server }) => server === i).map(({ result }) => result)
  );
  const numRounds = Math.min(a.length, b?.length ?? 0);
  if (numRounds === 0) return null;
  const figures = compareRuns(a.slice(0, numRounds), b.slice(0, numRounds), shown);
  return { figures, numRounds };
}

/** A run, and the server that it measured. */
interface Measured extends NamedRun {
  readonly session: Session;
}

async function withServer<T>(
  plan: BenchPlan,
  spec: ServerSpec,
  signal: AbortSignal,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const unknown = { spec, headers: headersOf(plan), model: null };
  await using server = await startServer(spec, () => isServing(unknown), signal);
  return await use(await openSession(plan, server.spec));
}

/** Ctrl-C stops sending, and shows what was measured so far; a second one ends the program. */
class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  readonly #listener = () => {
    if (this.signal.aborted) Deno.exit(INTERRUPTED);
    this.#controller.abort();
  };

  constructor() {
    Deno.addSignalListener("SIGINT", this.#listener);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    Deno.removeSignalListener("SIGINT", this.#listener);
  }
}

function writeFiles(plan: BenchPlan, runs: readonly Measured[], argv: readonly string[]): void {
  const { options, shown } = plan;
  const date = new Date();
  if (options.saveResult || options.appendResult) {
    for (const run of runs) saveJson(plan, run, date, argv, runs.length > 1);
  }
  if (options.csv !== null) {
    for (const { name, result } of runs) {
      write(runs.length === 1 ? options.csv : suffixed(options.csv, name), resultCsv(result));
    }
  }
  if (options.saveTrace !== null) write(options.saveTrace, resultTrace(runs[0].result));
  if (options.html !== null) {
    const [{ result, session }] = runs;
    const compared = comparisonOf(plan, runs);
    const head = {
      lead: compared === null
        ? runSentence(result)
        : comparisonSentence(compared.figures, compared.numRounds),
      notes: [
        `${result.requests.length} requests, model ${session.model}`,
        ...(plan.servers.length === 1
          ? []
          : plan.servers.map(({ name }, i) => `${"AB"[i]}: ${name}`)),
        ...(compared === null
          ? []
          : ["\u25b2 marks where B is better than A by more than 2%, \u25bc where it is worse."]),
        `llumnix ${version}, ${date.toISOString().replace(/\.\d+Z$/, "Z")}`,
      ],
      folded: { title: "Command line", lines: [commandLine(argv)] },
    };
    const table = compared === null ? null : markedTable(compared.figures, compared.numRounds);
    write(options.html, renderReport(resultReport(head, runs, shown, table)));
  }
}

function saveJson(
  plan: BenchPlan,
  { name, result, session }: Measured,
  date: Date,
  argv: readonly string[],
  hasOthers: boolean,
): void {
  const { options, shown } = plan;
  const json = resultJson(
    result,
    identityOf(plan, session, date, argv),
    shown,
    options.saveDetailed,
  );
  const path = resultPath(plan, session, date);
  const text = JSON.stringify(json);
  const target = hasOthers && !options.appendResult ? suffixed(path, name) : path;
  if (options.resultDir !== null) Deno.mkdirSync(options.resultDir, { recursive: true });
  if (!options.appendResult) return write(target, text);
  const isFirst = sizeOf(target) === 0;
  write(target, isFirst ? text : `\n${text}`, { append: true });
}

function identityOf(
  { options, schedule, metadata }: BenchPlan,
  { model }: Session,
  date: Date,
  argv: readonly string[],
): ResultIdentity {
  const rate = options.qps ?? options.requestRate;
  return {
    date: localDate(date),
    backend: options.backend,
    label: options.label,
    modelId: options.model ?? model ?? "",
    tokenizerId: options.tokenizer ?? options.model ?? model ?? "",
    numPrompts: options.numPrompts,
    metadata,
    traffic: {
      request_rate: rate ?? "inf",
      burstiness: Number(options.burstiness) || options.burstiness,
      ...(schedule.kind === "ramp"
        ? {
          ramp_up_strategy: schedule.strategy,
          ramp_up_start_rps: schedule.startRate,
          ramp_up_end_rps: schedule.endRate,
        }
        : {}),
    },
    own: { version, command: commandLine(argv) },
  };
}

/** The file that vLLM's benchmark would write. */
function resultPath({ options, schedule }: BenchPlan, { model }: Session, date: Date): string {
  const { resultDir, resultFilename, label, backend, maxConcurrency } = options;
  const rate = schedule.kind === "ramp"
    ? `ramp-up-${schedule.strategy}-${schedule.startRate}qps-${schedule.endRate}`
    : options.qps ?? options.requestRate ?? "inf";
  const concurrency = maxConcurrency === null ? "" : `-concurrency${maxConcurrency}`;
  const base = (options.model ?? model ?? "").replace(/\/+$/, "").split("/").at(-1);
  const name = resultFilename ??
    `${label ?? backend}-${rate}qps${concurrency}-${base}-${localDate(date)}.json`;
  return resultDir === null ? name : `${resultDir}/${name}`;
}

/** As it could be typed again; the admin token is left out. */
function commandLine(argv: readonly string[]): string {
  const words = argv.map((word, i) => {
    if (/^--admin[-_]token=/.test(word)) return "--admin-token=***";
    if (/^--admin[-_]token$/.test(argv[i - 1] ?? "")) return "***";
    return /^[\w./:=,@+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
  });
  return ["llumnix", "bench", ...words].join(" ");
}

/** "20261129-234200" */
function localDate(date: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  return `${date.getFullYear()}${two(date.getMonth() + 1)}${two(date.getDate())}-` +
    `${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}`;
}

/** "report.A2.csv" of "report.csv" */
function suffixed(path: string, name: string): string {
  const dot = path.lastIndexOf(".");
  return dot <= path.lastIndexOf("/")
    ? `${path}.${name}`
    : `${path.slice(0, dot)}.${name}${path.slice(dot)}`;
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

function write(path: string, text: string, options?: Deno.WriteFileOptions): void {
  try {
    Deno.writeTextFileSync(path, text, options);
  } catch (error) {
    throw new UsageError(`cannot write ${path}: ${fileProblem(error)}`);
  }
}

function notice(text: string): void {
  console.error(`llumnix bench: ${text}`);
}
