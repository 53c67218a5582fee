/**
 * What clients notice if an instance is killed or hangs: the built executable, two instances with the
 * CPU executor, one thread each, streams through HTTP. All streams run on the instance that fails and
 * continue on the other one, while a replacement starts on the same cores.
 *
 * A resumed stream must recompute its prompt and tokens. This recomputation is measured in the same
 * round, on the same instance, for the same tokens, sent all at once as the resumed requests are.
 */
import { textTable } from "../../src/report/text_table.ts";
import { realClock, sleep } from "../../src/core/clock.ts";
import { makeModel, parseMakeModelArgs } from "../make_model.ts";
import { type BenchService, startService } from "./service.ts";
import { median } from "./table.ts";

/** 6 million parameters. */
const modelArgs =
  "--hidden 256 --layers 8 --heads 8 --kv-heads 8 --intermediate 768 --max-positions 8192 --dtype bf16";
const contexts = [256, 1024, 4096];
const numStreams = 4;
/** The instance fails once every stream has the first number of tokens; a stream ends at the second. */
const tokensBefore = 32, tokensInAll = 96;
const rounds = 4;
/** Tokens sent before the fault arrive within this time; no stream is resumed as soon. */
const underWayMs = 20;
const instanceTimeoutS = 2;
const pollMs = 5;

const token = "bench";
const faults = { kill: "SIGKILL", hang: "SIGSTOP" } as const;
type Fault = keyof typeof faults;

interface Stream {
  readonly tokenIds: number[];
  /** When the tokens came. */
  readonly tokenMs: number[];
}

/** Times since the fault, in ms. */
interface Round {
  readonly detectedMs: number;
  /** For each stream, time until it continues. */
  readonly gapsMs: readonly number[];
  /** For each stream, time from asking for its next token to receiving it, without a fault. */
  readonly recomputeMs: readonly number[];
}

/** An instance as `GET /admin/instances` shows it. */
interface Instance {
  readonly id: string;
  readonly pid: number;
  readonly state: string;
}

/**
 * Runs the benchmark.
 * @throws {Error} a stream differs from that of a run without faults
 */
export async function benchFailure(): Promise<void> {
  const model = await Deno.makeTempDir();
  try {
    makeModel(parseMakeModelArgs([...modelArgs.split(" "), "--out", model]));
    // Discard the log: the faults that it reports are intended.
    await using service = await startService([
      ...["--model", model, "--initial-instances=2", "--cpu-threads=1", "--swap-space=0"],
      ...["--num-gpu-blocks-override=1200", "--disable-log-requests"],
      `--instance-timeout=${instanceTimeoutS}`,
    ], { env: { LLUMNIX_ADMIN_TOKEN: token }, onLog: () => {} });
    for (const fault of Object.keys(faults) as Fault[]) await benchFault(service, fault);
  } finally {
    await Deno.remove(model, { recursive: true });
  }
}

async function benchFault(service: BenchService, fault: Fault): Promise<void> {
  const rows: string[][] = [];
  for (const context of contexts) {
    const prompts = Array.from({ length: numStreams }, (_, i) => promptOf(context, i));
    const quiet = await Promise.all(prompts.map((prompt) => runStream(service, prompt)));
    const done: Round[] = [];
    for (let i = 0; i < rounds; i++) done.push(await runRound(service, fault, prompts, quiet));
    const beyondMs = done.flatMap(({ detectedMs, gapsMs, recomputeMs }) =>
      gapsMs.map((gapMs, i) => gapMs - detectedMs - recomputeMs[i])
    );
    rows.push([
      `${context}`,
      p50AndMax(done.map(({ detectedMs }) => detectedMs)),
      p50AndMax(done.flatMap(({ gapsMs }) => gapsMs)),
      p50AndMax(done.flatMap(({ recomputeMs }) => recomputeMs)),
      p50AndMax(beyondMs),
    ]);
  }
  const timeout = fault === "hang" ? ` (--instance-timeout ${instanceTimeoutS})` : "";
  console.log(
    `\nAn instance with ${numStreams} streams: ${fault}${timeout}, ${rounds} rounds each; ms, P50 / max`,
  );
  console.log(
    textTable(
      ["prompt tokens", "detected", "streams go on", "recompute", "beyond both"],
      rows,
    ),
  );
}

async function runRound(
  service: BenchService,
  fault: Fault,
  prompts: readonly number[][],
  quiet: readonly Stream[],
): Promise<Round> {
  const [victim, survivor] = await servingPair(service);
  const streams: Stream[] = prompts.map(() => ({ tokenIds: [], tokenMs: [] }));
  await admin(service, "POST", `/${survivor.id}/drain`);
  const running = prompts.map((prompt, i) => runStream(service, prompt, streams[i]));
  const ended = Promise.all(running);
  while (streams.some(({ tokenIds }) => tokenIds.length < tokensBefore)) {
    await Promise.race([ended, sleep(realClock, pollMs)]);
  }
  await admin(service, "POST", `/${survivor.id}/keep`);
  const faultMs = performance.now();
  Deno.kill(victim.pid, faults[fault]);
  const detectedMs = await untilGivenUp(service, victim) - faultMs;
  await ended;
  const resumed = streams.map(({ tokenIds, tokenMs }, i) => {
    if (`${tokenIds}` !== `${quiet[i].tokenIds}`) {
      throw new Error("a stream's tokens differ from those of the run without faults");
    }
    return { ...resumptionOf(tokenMs, faultMs), tokenIds };
  });
  const again = resumed.map(({ tokenIds, delivered }, i) => [
    ...prompts[i],
    ...tokenIds.slice(0, delivered),
  ]);
  return {
    detectedMs,
    gapsMs: resumed.map(({ gapMs }) => gapMs),
    recomputeMs: await timeRecompute(service, survivor, again),
  };
}

function resumptionOf(tokenMs: readonly number[], faultMs: number) {
  const delivered = tokenMs.findIndex((ms) => ms > faultMs + underWayMs);
  if (delivered < 0) throw new Error("a stream ended before the fault");
  return { delivered, gapMs: tokenMs[delivered] - faultMs };
}

async function timeRecompute(
  service: BenchService,
  survivor: Instance,
  prompts: readonly number[][],
): Promise<number[]> {
  const other = (await servingPair(service)).find(({ id }) => id !== survivor.id)!;
  await admin(service, "POST", `/${other.id}/drain`);
  const sentMs = performance.now();
  const streams = await Promise.all(
    prompts.map((prompt) => runStream(service, prompt, undefined, 1)),
  );
  await admin(service, "POST", `/${other.id}/keep`);
  return streams.map(({ tokenMs }) => tokenMs[0] - sentMs);
}

/** Waits until both instances serve, and returns them, the older one first. */
async function servingPair(service: BenchService): Promise<readonly Instance[]> {
  while (true) {
    const instances = await listInstances(service);
    if (instances.length === 2 && instances.every(({ state }) => state === "serving")) {
      return instances;
    }
    await sleep(realClock, pollMs);
  }
}

/** Waits until the manager no longer lists an instance as serving, and returns the time. */
async function untilGivenUp(service: BenchService, { id }: Instance): Promise<number> {
  while ((await listInstances(service)).some((one) => one.id === id && one.state === "serving")) {
    await sleep(realClock, pollMs);
  }
  return performance.now();
}

async function listInstances(service: BenchService): Promise<readonly Instance[]> {
  return (await admin(service, "GET", "")).instances;
}

async function admin({ port }: BenchService, method: string, path: string) {
  const response = await fetch(`http://127.0.0.1:${port}/admin/instances${path}`, {
    method,
    headers: { authorization: `Bearer ${token}` },
  });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return JSON.parse(text);
}

/** @param stream receives the tokens and their times */
async function runStream(
  { port }: BenchService,
  prompt: readonly number[],
  stream: Stream = { tokenIds: [], tokenMs: [] },
  maxTokens = tokensInAll,
): Promise<Stream> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      ...{ prompt, max_tokens: maxTokens, temperature: 0, ignore_eos: true },
      ...{ detokenize: false, stream: true },
    }),
  });
  if (!response.ok) throw new Error(await response.text());
  let rest = "";
  for await (const text of response.body!.pipeThrough(new TextDecoderStream())) {
    const nowMs = performance.now();
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (!line.startsWith("data: {")) continue;
      const { choices, error } = JSON.parse(line.slice("data: ".length));
      if (error) throw new Error(error.message);
      for (const id of choices[0].token_ids) {
        stream.tokenIds.push(id);
        stream.tokenMs.push(nowMs);
      }
    }
  }
  if (stream.tokenIds.length !== maxTokens) {
    throw new Error(`a stream ended after ${stream.tokenIds.length} of ${maxTokens} tokens`);
  }
  return stream;
}

function promptOf(numTokens: number, stream: number): number[] {
  return Array.from({ length: numTokens }, (_, i) => 3 + (i * 31 + i * i * 7 + stream * 41) % 250);
}

function p50AndMax(samplesMs: readonly number[]): string {
  return `${median(samplesMs).toFixed(0)} / ${Math.max(...samplesMs).toFixed(0)}`;
}

if (import.meta.main) await benchFailure();
