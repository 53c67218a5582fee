/**
 * Four CPU instances under a bursty load, from an open-loop client: dispatch by round robin against
 * by load, migration off against on. Each round draws a workload from its seed and runs it on all
 * configurations one after the other, in an order that changes from round to round; ratios compare runs
 * of the same round. Instances and client share the machine's cores, so more load on one instance slows
 * the others too: dispatch and migration can win KV cache here, not arithmetic.
 *
 *     deno run -A scripts/bench/cluster.ts [--seeds 1,2,3] [--rate 8] [--cv 4] [--requests 200]
 */
import { parseArgs } from "node:util";
import { Metric } from "../../src/bench/metric.ts";
import { type LoadResult, runOpenLoop } from "../../src/bench/open_loop.ts";
import { type LatencyName, summarize, type Summary } from "../../src/bench/summary.ts";
import { formatNumber, spreadOf } from "../../src/core/stats/spread.ts";
import { textTable } from "../../src/report/text_table.ts";
import { realClock } from "../../src/core/clock.ts";
import { generateWorkload } from "../../src/workload/generate.ts";
import { zipfLengths } from "../../src/workload/lengths.ts";
import type { WorkloadRequest } from "../../src/workload/request.ts";
import { makeModel, parseMakeModelArgs } from "../make_model.ts";
import { Client, startService } from "./service.ts";

/** 6 million parameters: a decode step of a batch takes some milliseconds, a prefill some tens. */
const modelArgs =
  "--hidden 256 --layers 8 --heads 8 --kv-heads 8 --intermediate 768 --max-positions 2048 --dtype bf16";
const numInstances = 4;
/** Blocks of each instance's KV cache: enough for some requests of mean length, or two of the longest. */
const blocksPerInstance = 128;
const promptTokens = zipfLengths({ name: "P", meanTokens: 96, exponent: 1.2, maxTokens: 768 });
const outputTokens = zipfLengths({ name: "O", meanTokens: 128, exponent: 1.2, maxTokens: 768 });

interface Setup {
  readonly name: string;
  readonly args: readonly string[];
}

const migration = ["--enable-migration", "--enable-defrag=true", "--migration-buffer-blocks=128"];
const setups: readonly Setup[] = [
  { name: "rr", args: ["--dispatch-policy", "rr"] },
  { name: "load", args: ["--dispatch-policy", "load"] },
  { name: "rr + migration", args: ["--dispatch-policy", "rr", ...migration] },
  { name: "load + migration", args: ["--dispatch-policy", "load", ...migration] },
];

interface Load {
  readonly seeds: readonly number[];
  /** Requests per second. */
  readonly rate: number;
  /** Coefficient of variation of the gaps: 1 is Poisson, more is burstier. */
  readonly cv: number;
  readonly requests: number;
}

const defaultLoad: Load = { seeds: [1, 2, 3], rate: 8, cv: 4, requests: 160 };

/** A load that has ended, and its figures. */
interface Measured {
  readonly load: LoadResult;
  readonly summary: Summary;
}

interface Figure {
  readonly name: string;
  readonly of: (result: Measured) => number;
}

const latency = (name: LatencyName, p: number) => ({ summary }: Measured) =>
  summary.latencies[name].percentile(p);

const figures: readonly Figure[] = [
  { name: "TTFT P50 ms", of: latency("ttft", 50) },
  { name: "TTFT P99 ms", of: latency("ttft", 99) },
  { name: "ITL P50 ms", of: latency("itl", 50) },
  { name: "ITL P99 ms", of: latency("itl", 99) },
  { name: "longest ITL P99 ms", of: ({ load }) => longestGapsMs(load).percentile(99) },
  { name: "end-to-end P50 ms", of: latency("e2el", 50) },
  { name: "end-to-end P99 ms", of: latency("e2el", 99) },
  { name: "tokens/s", of: ({ summary }) => summary.outputThroughput },
  { name: "failed", of: ({ summary }) => summary.failed },
  { name: "sent late P99 ms", of: ({ summary }) => summary.lateMs.percentile(99) },
];

/** The longest time between two tokens of each request. */
function longestGapsMs({ records }: LoadResult): Metric {
  return new Metric(
    records.filter(({ gapsMs }) => gapsMs.length > 0).map(({ gapsMs }) => Math.max(...gapsMs)),
  );
}

/** Runs the benchmark. */
export async function benchCluster(load: Load = defaultLoad): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    makeModel(parseMakeModelArgs([...modelArgs.split(" "), "--out", directory]));
    const results = new Map<Setup, Measured[]>(setups.map((setup) => [setup, []]));
    for (const [round, seed] of load.seeds.entries()) {
      const turns = setups.map((_, i) => setups[(i + round) % setups.length]);
      for (const setup of turns) {
        const result = await runSetup(directory, setup, workloadOf(load, seed));
        results.get(setup)!.push(result);
        const failures = result.load.records.map(({ failure }) => failure);
        for (const failure of new Set(failures)) {
          if (failure !== null) console.error(`${setup.name}: ${failure}`);
        }
      }
    }
    report(load, results);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function workloadOf({ rate, cv, requests }: Load, seed: number): readonly WorkloadRequest[] {
  const workload = generateWorkload({
    arrivals: { kind: "gamma", rate, cv },
    lengths: { prompt: promptTokens, output: outputTokens },
    numRequests: requests,
    highPriority: 0,
    seed,
  });
  return [...workload];
}

async function runSetup(
  model: string,
  { args }: Setup,
  requests: readonly WorkloadRequest[],
): Promise<Measured> {
  await using service = await startService([
    ...["--model", model, "--initial-instances", `${numInstances}`, "--cpu-threads", "1"],
    ...["--num-gpu-blocks-override", `${blocksPerInstance}`, "--swap-space", "0"],
    ...["--disable-log-requests", ...args],
  ]);
  const send = (request: WorkloadRequest, onTokens: (count: number) => void) =>
    complete(service.port, request, onTokens);
  const warmUp = Array.from({ length: 2 * numInstances }, () => ({
    ...{ arrivalMs: 0, promptTokens: 64, outputTokens: 32, priority: "normal" as const },
  }));
  await runOpenLoop(warmUp, send, { clock: realClock });
  const load = await runOpenLoop(requests, send, { clock: realClock });
  return { load, summary: summarize(load, requests.map(({ promptTokens }) => promptTokens)) };
}

/** One streamed completion on a connection of its own; every token is an event. */
async function complete(
  port: number,
  { arrivalMs, promptTokens, outputTokens }: WorkloadRequest,
  onTokens: (count: number) => void,
): Promise<void> {
  using client = await Client.connect(port);
  let received = 0;
  await client.post("/v1/completions", {
    prompt: Array.from({ length: promptTokens }, (_, i) => 3 + (i * 31 + arrivalMs | 0) % 250),
    ...{ max_tokens: outputTokens, temperature: 0, ignore_eos: true },
    ...{ detokenize: false, stream: true },
  });
  await client.readEvents((count) => {
    received += count;
    onTokens(count);
  });
  if (received !== outputTokens) {
    throw new Error(`the stream ended after ${received} of ${outputTokens} tokens`);
  }
}

function report(load: Load, results: ReadonlyMap<Setup, readonly Measured[]>): void {
  const { rate, cv, requests, seeds } = load;
  console.log(
    `\n${numInstances} CPU instances, ${requests} requests at ${rate}/s (Gamma, CV ${cv}), ` +
      `seeds ${seeds.join(", ")}: means; in brackets the ratio to rr: mean (least to greatest)`,
  );
  const baseline = results.get(setups[0])!;
  const rows = figures.map(({ name, of }) => [
    name,
    ...setups.map((setup) => {
      const values = results.get(setup)!.map(of), base = baseline.map(of);
      const ratios = spreadOf(values.map((value, i) => base[i] / value));
      const mean = formatNumber(spreadOf(values).mean);
      if (setup === setups[0] || !name.endsWith(" ms")) return mean;
      const [ratio, least, most] = [ratios.mean, ratios.min, ratios.max].map(formatNumber);
      return `${mean} [${ratio}x (${least} to ${most})]`;
    }),
  ]);
  console.log(textTable(["", ...setups.map(({ name }) => name)], rows));
}

if (import.meta.main) {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    options: { seeds: text, rate: text, cv: text, requests: text },
  });
  await benchCluster({
    seeds: values.seeds?.split(",").map(Number) ?? defaultLoad.seeds,
    rate: Number(values.rate ?? defaultLoad.rate),
    cv: Number(values.cv ?? defaultLoad.cv),
    requests: Number(values.requests ?? defaultLoad.requests),
  });
}
