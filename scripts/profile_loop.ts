/**
 * How well a simulated service predicts a real one: run, log, fit, simulate, compare. The profile is fitted on
 * three workloads; five others, with other seeds, lengths and rates, are then run on the service and
 * simulated. Prints the commands and a table, and leaves logs, traces and results in a directory.
 *
 *     deno run -A scripts/profile_loop.ts --device cpu --rounds 3 --out DIRECTORY
 *
 * A round runs everything. With several, each has a folder `round1`, `round2`, ...: the profile is fitted on the
 * logs of all of them, and the figures are the medians of the rounds, so that a machine that is slow for some
 * minutes is slow in both. `--from DIRECTORY` fits and simulates again from what an earlier run has left,
 * without the service.
 */
import { parseArgs } from "node:util";
import { makeModel, parseMakeModelArgs } from "./make_model.ts";
import { quantile } from "../src/core/stats/distribution.ts";
import { textTable } from "../src/report/text_table.ts";

interface Workload {
  readonly name: string;
  readonly args: string;
}

interface Service {
  /** Arguments of `serve`, which sets the number of instances and the model. */
  readonly serve: string;
  /** Seconds between two rows of the log: short enough to see prefills. */
  readonly logInterval: number;
  /** Arguments of `profile fit`. */
  readonly fit?: readonly string[];
  readonly model: string;
  /** Arguments of `make_model.ts`, for a model that has to be made. */
  readonly makeArgs?: string;
  /** Arguments of every `bench`. */
  readonly bench?: readonly string[];
  readonly fitted: readonly Workload[];
  /** Requests one at a time: what a request takes outside of the instance. */
  readonly alone: Workload;
  readonly heldOut: readonly Workload[];
}

/** A model whose steps take some milliseconds on a core. */
const cpuModel =
  "--hidden 512 --layers 8 --heads 8 --kv-heads 8 --intermediate 1536 --max-positions 2048 --dtype bf16";
const blocks = 512;
/**
 * Tokens of that model that are letters. A byte that is no letter has no text, and brings no event: a first token
 * would seem to come later than it does.
 */
const letters = Array.from({ length: 26 }, (_, i) => 97 + i);

const services: Readonly<Record<string, Service>> = {
  cpu: {
    serve: `--device cpu --cpu-threads 1 --num-gpu-blocks-override ${blocks} --swap-space 0`,
    logInterval: 0.005,
    fit: ["--max-piece-tokens", "512"],
    model: "loop",
    makeArgs: cpuModel,
    bench: ["--extra-body", JSON.stringify({ allowed_token_ids: letters })],
    fitted: [
      work("f1", 1, 30, "--qps 3", 128, 32, 0.9),
      work("f2", 2, 30, "--qps 3", 32, 64, 0.9),
      work("f3", 3, 20, "--qps 2", 400, 24, 0.7),
      work("f4", 5, 60, "--max-concurrency 24 --qps 60", 80, 40, 0.9),
    ],
    alone: work(
      "alone",
      4,
      40,
      "--request-rate 3 --burstiness inf --max-concurrency 1",
      160,
      2,
      0.9,
    ),
    heldOut: [
      work("chat", 11, 100, "--qps 3", 64, 64, 0.5),
      work("long prompts", 12, 100, "--qps 2.5", 256, 16, 0.5),
      work("bursts", 13, 100, "--qps 3 --distribution gamma --cv 3", 96, 48, 0.5),
      work("long answers", 14, 80, "--qps 2", 24, 120, 0.5),
      work("mixed", 15, 100, "--qps 3", 160, 40, 0.9),
    ],
  },
  sim: {
    serve: `--device sim --gpu-type a10`,
    logInterval: 0.1,
    model: "llama-7b",
    fitted: [
      work("f1", 1, 60, "--qps 4", 256, 64, 0.9),
      work("f2", 2, 50, "--qps 4", 64, 128, 0.9),
      work("f3", 3, 30, "--qps 2", 1000, 32, 0.7),
    ],
    alone: work("alone", 4, 40, "--max-concurrency 1", 512, 2, 0.9),
    heldOut: [
      work("chat", 11, 60, "--qps 3", 128, 128, 0.5),
      work("long prompts", 12, 40, "--qps 1.5", 700, 32, 0.5),
      work("bursts", 13, 60, "--qps 3 --distribution gamma --cv 3", 200, 64, 0.5),
      work("long answers", 14, 40, "--qps 2", 48, 200, 0.5),
      work("mixed", 15, 50, "--qps 2.5", 400, 80, 0.9),
    ],
  },
};

function work(
  name: string,
  seed: number,
  requests: number,
  rate: string,
  input: number,
  output: number,
  range: number,
): Workload {
  return {
    name,
    args: `--seed ${seed} --num-prompts ${requests} ${rate} --random-input-len ${input} ` +
      `--random-output-len ${output} --random-range-ratio ${range}`,
  };
}

const program = [Deno.execPath(), "run", "-A", new URL("../mod.ts", import.meta.url).pathname];

/** Runs `llumnix WORDS` in the directory; shows the command line. */
async function llumnix(directory: string, words: readonly string[]): Promise<string> {
  console.log(`llumnix ${words.map((word) => /[ '"]/.test(word) ? `"${word}"` : word).join(" ")}`);
  const [name, ...args] = [...program, ...words];
  const { success, stdout, stderr } = await new Deno.Command(name, { args, cwd: directory })
    .output();
  const text = new TextDecoder().decode(stdout);
  if (!success) throw new Error(`${text}\n${new TextDecoder().decode(stderr)}`);
  return text;
}

/**
 * Runs all workloads on the service. Logs are kept only of the workloads that profiles are fitted to.
 * @param model its name, or its path seen from the directory
 */
async function measure(directory: string, service: Service, model: string): Promise<void> {
  const log = `--log-instance-info --log-filename fit --polling-interval ${service.logInterval}`;
  for (const isLogged of [true, false]) {
    const serve = `--model ${model} --initial-instances 1 --disable-log-requests ` +
      `${service.serve} ${isLogged ? log : ""}`;
    const port = 18_700 + Number(isLogged);
    const server = new Deno.Command(program[0], {
      args: [...program.slice(1), "serve", ...serve.trim().split(/\s+/), `--port=${port}`],
      cwd: directory,
      stdout: "null",
      stderr: "null",
    }).spawn();
    console.log(`llumnix serve ${serve} --port ${port} &`);
    try {
      const workloads = isLogged ? [...service.fitted, service.alone] : service.heldOut;
      for (const { name, args } of workloads) {
        const file = name.replaceAll(" ", "_");
        await llumnix(directory, [
          ...["bench", "--port", `${port}`, "--ready-check-timeout-sec", "60", ...args.split(" ")],
          ...["--num-warmups", "3", "--disable-tqdm", ...service.bench ?? []],
          ...["--metric-percentiles", "90", "--save-result", "--result-filename", `${file}.json`],
          ...["--csv", `${file}.csv`],
          ...(isLogged ? [] : ["--save-trace", `${file}.jsonl`]),
        ]);
      }
    } finally {
      server.kill("SIGTERM");
      await server.status;
    }
  }
}

interface SimulatedLatencies {
  readonly ttftMs: { readonly p50: number };
  readonly tpotMs: { readonly p50: number };
  readonly e2eMs: { readonly p50: number };
}

/** The medians that `llumnix bench --save-result` writes. */
interface MeasuredLatencies {
  readonly median_ttft_ms: number;
  readonly median_tpot_ms: number;
  readonly median_e2el_ms: number;
}

/** @param rounds folders of the rounds, below the directory; "." if there is one round */
async function predict(
  directory: string,
  rounds: readonly string[],
  service: Service,
): Promise<string[][]> {
  const { model } = service;
  const requests = "alone.csv";
  if (rounds.length > 1) {
    const texts = rounds.map((round) => Deno.readTextFileSync(`${directory}/${round}/alone.csv`));
    await Deno.writeTextFile(`${directory}/${requests}`, oneAfterTheOther(texts));
  }
  const fit = await llumnix(directory, [
    ...["profile", "fit", ...rounds.map((round) => `${round}/fit_instance.csv`)],
    ...["--model", model, "--requests", requests, "--out", "profile.json"],
    ...(service.fit ?? []),
  ]);
  console.log(fit);
  const rows: string[][] = [];
  for (const { name } of service.heldOut) {
    const file = name.replaceAll(" ", "_");
    // Every round has the same requests.
    const out = await llumnix(directory, [
      ...["simulate", "--trace", `${rounds[0]}/${file}.jsonl`, "--model", model],
      ...["--instances", "1", "--seeds", "1"],
      ...["--profiling-result-file-path", "profile.json", "--json", "-"],
    ]);
    const { runs: [{ all }] } = JSON.parse(out) as { runs: [{ all: SimulatedLatencies }] };
    const measured = await Promise.all(
      rounds.map(async (round): Promise<MeasuredLatencies> =>
        JSON.parse(await Deno.readTextFile(`${directory}/${round}/${file}.json`))
      ),
    );
    const cell = (of: (round: MeasuredLatencies) => number, simulated: number) => {
      const values = measured.map(of).sort((a, b) => a - b);
      const real = quantile(Float64Array.from(values), 0.5);
      const range = values.length === 1
        ? ""
        : ` [${values[0].toFixed(1)} to ${values.at(-1)!.toFixed(1)}]`;
      const error = 100 * (simulated / real - 1);
      return `${real.toFixed(1)}${range}, ${simulated.toFixed(1)} (${error.toFixed(1)}%)`;
    };
    rows.push([
      name,
      cell((round) => round.median_ttft_ms, all.ttftMs.p50),
      cell((round) => round.median_tpot_ms, all.tpotMs.p50),
      cell((round) => round.median_e2el_ms, all.e2eMs.p50),
    ]);
  }
  return rows;
}

/** Joins CSV files of `llumnix bench`: the times of each are shifted, so that it begins where the last ended. */
function oneAfterTheOther(texts: readonly string[]): string {
  const header = texts[0].split("\n", 1)[0];
  const names = header.split(",");
  const times = names.flatMap((name, i) => name.endsWith("_s") ? [i] : []);
  const end = names.indexOf("end_s");
  const rows: string[][] = [];
  for (const text of texts) {
    const startS = Number(rows.at(-1)?.[end] ?? 0);
    for (const line of text.trim().split("\n").slice(1)) {
      const cells = line.split(",");
      rows.push(cells.map((cell, i) => times.includes(i) ? String(startS + Number(cell)) : cell));
    }
  }
  return [header, ...rows.map((row) => row.join(",")), ""].join("\n");
}

/** The folders of an earlier run. */
function roundsIn(directory: string): string[] {
  const names = [...Deno.readDirSync(directory)].map(({ name }) => name);
  const rounds = names.filter((name) => /^round\d+$/.test(name)).sort();
  return rounds.length === 0 ? ["."] : rounds;
}

const text = { type: "string" } as const;
const { values } = parseArgs({
  options: { device: text, out: text, from: text, rounds: { ...text, default: "1" } },
});
const service = services[values.device ?? "cpu"];
const directory = values.from ?? values.out;
const numRounds = Number(values.rounds);
if (service === undefined || directory === undefined || !(numRounds >= 1 && numRounds <= 9)) {
  console.error(
    "usage: profile_loop.ts --device cpu|sim --out DIRECTORY [--rounds 1..9] | --from DIRECTORY",
  );
  Deno.exit(2);
}
if (values.from === undefined) {
  const { makeArgs } = service;
  if (makeArgs !== undefined) {
    const out = `${directory}/${service.model}`;
    makeModel(parseMakeModelArgs([...makeArgs.split(" "), "--out", out]));
  }
  for (let round = 1; round <= numRounds; round++) {
    const folder = numRounds === 1 ? directory : `${directory}/round${round}`;
    await Deno.mkdir(folder, { recursive: true });
    await measure(
      folder,
      service,
      numRounds > 1 && makeArgs !== undefined ? `../${service.model}` : service.model,
    );
  }
}
const rows = await predict(directory, roundsIn(directory), service);
const header = [
  "medians: real, simulated (error)",
  "TTFT (ms)",
  "TPOT (ms)",
  "end-to-end (ms)",
];
console.log(textTable(header, rows));
