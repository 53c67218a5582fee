/** Engine steps from the files of `--log-instance-info`, of this program and of Llumnix. */
import { UsageError } from "../../core/errors.ts";
import { linesOf } from "../../workload/text_file.ts";

/** One engine step. */
export interface StepSample {
  readonly kind: "prefill" | "decode";
  readonly sequences: number;
  /** Prefill: tokens computed. Decode: lengths of all sequences together. */
  readonly tokens: number;
  /** Time inside the executor. */
  readonly latencyMs: number;
}

/** What a log says. */
export interface StepLog {
  readonly steps: readonly StepSample[];
  /**
   * Milliseconds from the end of a decode step to the start of the next one, a value for each two rows between
   * which an instance did nothing but decode the same sequences.
   */
  readonly pausesMs: readonly number[];
  /** Blocks of an instance; null if the rows do not tell. */
  readonly numBlocks: number | null;
}

const columnNames = [
  "timestamp",
  "instance_id",
  "step_id",
  "gpu_cache_usage",
  "num_available_gpu_blocks",
  "inference_type",
  "bs",
  "profiling_data",
] as const;
type ColumnName = typeof columnNames[number];
type Row = Readonly<Record<ColumnName, string>>;

/** The first byte of a pickle of protocol 2 or later. */
const PICKLE = 0x80;

interface LastRow {
  readonly stepId: number;
  readonly timestampMs: number;
  readonly sample: StepSample;
}

function isSame(a: StepSample, b: StepSample): boolean {
  return a.kind === b.kind && a.sequences === b.sequences && a.tokens === b.tokens &&
    a.latencyMs === b.latencyMs;
}

/** Whether each step since that row gave each of the same sequences a token: no prefill, no idle time. */
function isSteady(
  before: LastRow,
  { kind, sequences, tokens }: StepSample,
  stepId: number,
): boolean {
  return before.sample.kind === "decode" && kind === "decode" && stepId > before.stepId &&
    before.sample.sequences === sequences &&
    tokens - before.sample.tokens === sequences * (stepId - before.stepId);
}

/**
 * Reads a file row by row.
 * @throws {UsageError} it cannot be read, is a pickle, lacks columns, or has a wrong row; names the row
 */
export function readStepLog(path: string): StepLog {
  refusePickle(path);
  const steps: StepSample[] = [], pausesMs: number[] = [];
  const last = new Map<string, LastRow>();
  const usage: [used: number, available: number][] = [];
  let places: ReadonlyMap<ColumnName, number> | null = null;
  for (const { number, text } of linesOf(path)) {
    const cells = cellsOf(text);
    if (places === null) {
      places = placesOf(path, cells);
      continue;
    }
    const row = rowOf(path, number, cells, places);
    const found = stepOf(path, number, row);
    if (found === null) {
      last.delete(row.instance_id); // idle time is between its steps
      continue;
    }
    const { sample, stepId, timestampMs, usedShare, availableBlocks } = found;
    usage.push([usedShare, availableBlocks]);
    const before = last.get(row.instance_id);
    // A step is told when it ends, and again, with the next step's number, while that one runs.
    if (before !== undefined && isSame(before.sample, sample)) continue;
    steps.push(sample);
    if (before !== undefined && isSteady(before, sample, stepId)) {
      const stepMs = (before.sample.latencyMs + sample.latencyMs) / 2;
      pausesMs.push((timestampMs - before.timestampMs) / (stepId - before.stepId) - stepMs);
    }
    last.set(row.instance_id, { stepId, timestampMs, sample });
  }
  if (places === null) throw new UsageError(`The log ${path} is empty.`);
  return { steps, pausesMs, numBlocks: blocksOf(usage) };
}

/** @throws {UsageError} the file is a pickle: it says how to convert it */
export function refusePickle(path: string): void {
  let first: number | undefined;
  try {
    using file = Deno.openSync(path);
    const byte = new Uint8Array(1);
    first = file.readSync(byte) === 1 ? byte[0] : undefined;
  } catch {
    return; // The reader says why it cannot be read.
  }
  if (first !== PICKLE && !/\.(pkl|pickle)$/.test(path)) return;
  throw new UsageError(
    `${path} is a pickle of Llumnix, whose loading can run any code, so it is not read here. The logs ` +
      "that it was made of can be read: llumnix profile fit LOG_instance.csv. If they are gone, a " +
      "Python that has llumnix converts it:\n" + pickleCommand(path),
  );
}

/** Writes a row for each step of a pickle, as `readStepLog` takes them. */
function pickleCommand(path: string): string {
  const quoted = `'${path.replaceAll("'", `'\\''`)}'`;
  const program = [
    "import cloudpickle,sys",
    `print('${columnNames.join(",")}')`,
    "n=0",
    "for m in cloudpickle.load(open(sys.argv[1],'rb')).values():",
    " for d in m.para_dict.values():",
    "  r=[('prefill',1,t,v[0]) for t,v in d.prefill_latency.items()]",
    "  r+=[('decode',b,t,v[0]) for (b,t),v in d.decode_latency.items()]",
    "  for k,b,t,v in r:",
    "   n+=1",
    `   print(f"0,pickle,{n},0,0,{k},{t if k=='prefill' else b},\\"('{k}', {b}, {t}, {v})\\"")`,
  ].join("\n");
  return `  python3 - ${quoted} > steps.csv <<'END'\n${program}\nEND\n` +
    "A pickle of several models gives the steps of all: keep one model.";
}

function placesOf(path: string, header: readonly string[]): Map<ColumnName, number> {
  const places = new Map(columnNames.map((name) => [name, header.indexOf(name)]));
  const missing = columnNames.filter((name) => places.get(name)! < 0);
  if (missing.length === 0) return places;
  throw new UsageError(
    `The log ${path} lacks the columns ${missing.join(", ")}: expected a file of ` +
      "--log-instance-info, which begins with a header.",
  );
}

function rowOf(
  path: string,
  number: number,
  cells: readonly string[],
  places: ReadonlyMap<ColumnName, number>,
): Row {
  return Object.fromEntries(columnNames.map((name) => {
    const cell = cells[places.get(name)!];
    if (cell === undefined) throw wrongRow(path, number, `it has no cell for ${name}`);
    return [name, cell];
  })) as Record<ColumnName, string>;
}

function wrongRow(path: string, number: number, problem: string): UsageError {
  return new UsageError(`The log ${path} is wrong in row ${number}: ${problem}.`);
}

/** Null for a row without a step, such as that of an idle instance. */
function stepOf(path: string, number: number, row: Row) {
  const match = /^\(\s*'(\w*)'\s*,\s*(\w+)\s*,\s*(\w+)\s*,\s*([^)\s]+)\s*\)$/
    .exec(row.profiling_data);
  if (match === null && !/^\(\s*''/.test(row.profiling_data) && row.profiling_data !== "()") {
    const shape = "('prefill' or 'decode', sequences, tokens, milliseconds)";
    throw wrongRow(path, number, `profiling_data is ${row.profiling_data}, expected ${shape}`);
  }
  if (match === null || (match[1] !== "prefill" && match[1] !== "decode")) return null;
  const kind: StepSample["kind"] = match[1];
  const [sequences, contextTokens, latencyMs] = match.slice(2).map(Number);
  const batchedTokens = Number(row.bs);
  const tokens = kind === "prefill" ? batchedTokens : contextTokens;
  if (!(sequences > 0 && tokens > 0 && latencyMs > 0)) return null;
  return {
    sample: { kind, sequences, tokens, latencyMs },
    stepId: numberIn(path, number, row, "step_id"),
    timestampMs: 1000 * numberIn(path, number, row, "timestamp"),
    usedShare: numberIn(path, number, row, "gpu_cache_usage"),
    availableBlocks: numberIn(path, number, row, "num_available_gpu_blocks"),
  };
}

function numberIn(path: string, number: number, row: Row, name: ColumnName): number {
  const value = row[name] === "" ? NaN : Number(row[name]);
  if (Number.isFinite(value)) return value;
  throw wrongRow(path, number, `${name} is "${row[name]}", expected a number`);
}

/**
 * Available blocks are those of the instance, less the used ones and the watermark: the slope of available
 * over used blocks is the number of blocks.
 */
function blocksOf(usage: readonly (readonly [number, number])[]): number | null {
  const [first] = usage;
  const other = usage.find(([used]) => Math.abs(used - (first?.[0] ?? 0)) > 0.01);
  if (first === undefined || other === undefined) return null;
  const blocks = Math.round((first[1] - other[1]) / (other[0] - first[0]));
  return blocks > 0 ? blocks : null;
}

/** The cells of a line; a cell with commas is in quotes. */
function cellsOf(line: string): string[] {
  const cells: string[] = [];
  for (const match of line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)) {
    cells.push(match[1] === undefined ? match[2] : match[1].replaceAll('""', '"'));
  }
  return cells;
}
