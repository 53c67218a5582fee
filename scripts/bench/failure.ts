/**
 * What clients notice of an instance that is killed or hangs: the built executable, two instances with
 * the CPU executor, one thread each, streams through HTTP. All streams run on the instance that fails
 * and go on at the other one, while a third process starts in its place on the same cores.
 *
 * A stream has to compute its prompt and its tokens again, so that is measured in the same round, on
 * the same instance, for the same tokens, sent at once as the resumed ones are.
 */
import { textTable } from "../../src/report/text_table.ts";
import { realClock, sleep } from "../../src/core/clock.ts";
import { makeModel, parseMakeModelArgs } from "../make_model.ts";
import { type Service, startService } from "./service.ts";
import { median } from "./table.ts";

/** 6 million parameters. */
const modelArgs =
  "--hidden 256 --layers 8 --heads 8 --kv-heads 8 --intermediate 768 --max-positions 8192 --dtype bf16";
const contexts = [256, 1024, 4096];
const numStreams = 4;
/** The instance fails when every stream has the first of these; a stream ends with the second. */
const tokensBefore = 32, tokensInAll = 96;
const rounds = 4;
/** What had been sent before the fault comes so soon; no stream goes on as soon. */
const underWayMs = 20;
const instanceTimeoutS = 2;
const pollMs = 5;

const token = "bench";
const faults = { kill: "SIGKILL", hang: "SIGSTOP" } as const;
type Fault = keyof typeof faults;

interface Stream {
  readonly tokenIds: number[];
  /** When they came. */
  readonly tokenMs: number[];
}

/** Times from the fault on, in ms. */
interface Round {
  readonly detectedMs: number;
  /** Of each stream: until it goes on. */
  readonly gapsMs: readonly number[];
  /** Of each stream: from asking for its next token to having it, without a fault. */
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
 * @throws {Error} a stream was not that of a run without faults
 */
export async function benchFailure(): Promise<void> {
  const model = await Deno.makeTempDir();
  try {
    makeModel(parseMakeModelArgs([...modelArgs.split(" "), "--out", model]));
    // What is logged of the faults is no news: nobody reads it.
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

async function benchFault(service: Service, fault: Fault): Promise<void> {
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
  service: Service,
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
    if (`${tokenIds}` !== `${quiet[i].tokenIds}`) throw new Error("a stream has other tokens");
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
  if (delivered < 0) throw new Error("a stream had ended before the fault");
  return { delivered, gapMs: tokenMs[delivered] - faultMs };
}

async function timeRecompute(
  service: Service,
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

/** Both instances, the older one first, when they serve. */
async function servingPair(service: Service): Promise<readonly Instance[]> {
  while (true) {
    const instances = await listInstances(service);
    if (instances.length === 2 && instances.every(({ state }) => state === "serving")) {
      return instances;
    }
    await sleep(realClock, pollMs);
  }
}

/** When the manager does not count on an instance any more. */
async function untilGivenUp(service: Service, { id }: Instance): Promise<number> {
  while ((await listInstances(service)).some((one) => one.id === id && one.state === "serving")) {
    await sleep(realClock, pollMs);
  }
  return performance.now();
}

async function listInstances(service: Service): Promise<readonly Instance[]> {
  return (await admin(service, "GET", "")).instances;
}

async function admin({ port }: Service, method: string, path: string) {
  const response = await fetch(`http://127.0.0.1:${port}/admin/instances${path}`, {
    method,
    headers: { authorization: `Bearer ${token}` },
  });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return JSON.parse(text);
}

/** @param stream takes what comes */
async function runStream(
  { port }: Service,
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
  if (stream.tokenIds.length !== maxTokens) throw new Error("a stream broke off");
  return stream;
}

function promptOf(numTokens: number, stream: number): number[] {
  return Array.from({ length: numTokens }, (_, i) => 3 + (i * 31 + i * i * 7 + stream * 41) % 250);
}

function p50AndMax(samplesMs: readonly number[]): string {
  return `${median(samplesMs).toFixed(0)} / ${Math.max(...samplesMs).toFixed(0)}`;
}

if (import.meta.main) await benchFailure();
