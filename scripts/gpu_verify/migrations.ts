/**
 * Two instances on one device, whose requests move all the time under load: every request gets the bits that an
 * instance alone gives it, also when one of the two is killed; and how long a request that moves stands still.
 */
import { type BenchService, startService } from "../bench/service.ts";
import { expect, found, isShort, reached } from "./device.ts";
import { bench, completions, serveOptions, withModel } from "./service.ts";

const requests = isShort ? 6 : 24, tokens = isShort ? 24 : 256;
/** Every pair of instances exchanges requests, all the time. */
const restless = [
  ...["--enable-migration", "--enable-defrag=true", "--pair-migration-policy=defrag_relaxed"],
  ...["--migrate-out-threshold=0.01", "--polling-interval=0.01", "--request-migration-policy=LCR"],
];

const adminToken = crypto.randomUUID();

interface Moves {
  readonly committed: number;
  /** Of the requests that paused while they moved. */
  readonly downtimesMs: number[];
}

/** What the log tells of moves. */
function movesIn(lines: readonly string[]): Moves {
  const moved = lines.filter((line) => / moved .* in \d+ stages?: /.test(line));
  const downtimesMs = moved.flatMap((line) => {
    const downtime = /downtime ([\d.]+) ms/.exec(line)?.[1];
    return downtime === undefined ? [] : [Number(downtime)];
  });
  return { committed: moved.length, downtimesMs };
}

await withModel(async (model) => {
  const naming = await Deno.makeTempDir(), cache = await Deno.makeTempDir();
  const env = { XDG_CACHE_HOME: cache, LLUMNIX_ADMIN_TOKEN: adminToken };
  try {
    const one = await startService(serveOptions(model), { env });
    const expected = await completions(one, requests, tokens);
    await one[Symbol.asyncDispose]();
    const lines: string[] = [];
    await using two = await startService([
      ...[...serveOptions(model), "--initial-instances=2", ...restless],
      ...["--migration-backend=kvtransfer", "--migration-backend-transfer-type=cuda_ipc"],
      `--migration-backend-kvtransfer-naming-url=file:${naming}`,
    ], { env, onLog: (line) => lines.push(line) });
    compare(await completions(two, requests, tokens), expected, "moving");
    const { committed, downtimesMs } = movesIn(lines);
    expect(committed > 0, `no request moved:\n${lines.slice(-20).join("\n")}`);
    await measureDowntime(two, committed, downtimesMs);
    await killOne(two, lines, expected);
  } finally {
    for (const directory of [naming, cache]) await Deno.remove(directory, { recursive: true });
  }
});

function compare(actual: readonly string[], expected: readonly string[], what: string): void {
  const other = actual.findIndex((text, i) => text !== expected[i]);
  expect(other < 0, `${what}: request ${other} has other tokens or log probabilities`);
}

async function measureDowntime(
  service: BenchService,
  committed: number,
  downtimesMs: number[],
): Promise<void> {
  found(
    "requests that moved by cuda_ipc",
    `${committed}: tokens and log probabilities are the same`,
  );
  const { median_tpot_ms: stepMs } = await bench(service, isShort ? 2 : 16, "--max-concurrency=8");
  if (downtimesMs.length === 0) return found("downtime", "not measured: no request paused");
  const median = downtimesMs.toSorted((a, b) => a - b)[downtimesMs.length >> 1];
  found("downtime", `${median} ms (median), ${Math.max(...downtimesMs)} ms (longest)`);
  found("decode step meanwhile", `${stepMs.toFixed(2)} ms (median TPOT of 8 requests at a time)`);
  reached("downtime", median / stepMs);
}

/** kill -9 of one instance while requests run: the other one goes on with them. */
async function killOne(
  service: BenchService,
  lines: readonly string[],
  expected: readonly string[],
): Promise<void> {
  const running = completions(service, requests, tokens);
  await new Promise((resolve) => setTimeout(resolve, isShort ? 200 : 300));
  Deno.kill(await pidOf(service, "instance-1"), "SIGKILL");
  compare(await running, expected, "after kill -9 of an instance");
  expect(lines.some((line) => line.includes("lost instance-1")), "the service says what it lost");
  found("kill -9 of one of two instances", "tokens and log probabilities are the same");
}

async function pidOf({ port }: BenchService, instanceId: string): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${port}/admin/instances`, {
    headers: { authorization: `Bearer ${adminToken}` },
  });
  const { instances } = await response.json();
  const found = instances.find(({ id }: { id: string }) => id === instanceId);
  expect(typeof found?.pid === "number", `a process of ${instanceId}`);
  return found.pid;
}
