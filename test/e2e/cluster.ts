/** A service of several instances that a test does things to. */
import assert from "node:assert/strict";
import { openBus } from "../../src/bus/open_bus.ts";
import type { ClusterKey } from "../../src/bus/tcp.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import type { InstanceList, InstanceRegistration } from "../../src/core/protocol/membership.ts";
import { type Program, type ProgramOptions, startServer } from "./harness.ts";
import { runStream, type StreamRequest, type StreamResult } from "./streams.ts";

/** An instance that is stopped does not answer. */
const ANSWER_TIMEOUT_MS = 10_000;
const ADMIN_TOKEN = "e2e-token";
/** Environment of an API server of which this file asks as its operator. */
export const adminEnv = { LLUMNIX_ADMIN_TOKEN: ADMIN_TOKEN };
/** Requests that have ended are forgotten well before. */
const EMPTY_LIMIT_MS = 60_000;

/** Instances that share what little memory a test needs. */
export const small = ["--num-gpu-blocks-override=2000", "--swap-space=0", "--cpu-threads=1"];

/** Every pair of instances exchanges requests, all the time. */
export const restless = [
  "--enable-migration",
  "--enable-defrag=true",
  "--pair-migration-policy=defrag_relaxed",
  "--migrate-out-threshold=0.01",
  "--polling-interval=0.01",
  "--request-migration-policy=LCR",
];

export interface Cluster extends AsyncDisposable {
  readonly program: Program;
  /** "http://127.0.0.1:PORT" */
  readonly url: string;
  /** Bus address of the manager. */
  readonly managerAddress: string;
  /** Of a service whose processes connect over TCP. */
  readonly clusterKey?: ClusterKey | null;
}

/**
 * Starts `serve` with small instances of the built-in model. Disposing of it stops it and checks that
 * it leaves nothing.
 */
export async function startCluster(
  numInstances: number,
  args: readonly string[] = [],
  options: ProgramOptions = {},
): Promise<Cluster> {
  const server = await startServer(
    ["--initial-instances", `${numInstances}`, ...small, ...args],
    { ...options, env: { ...adminEnv, ...options.env } },
  );
  const { program, url } = server;
  const directory = runtimeDirectories(program)[0];
  assert.ok(directory, "there is no runtime directory");
  return {
    program,
    url,
    managerAddress: `unix:${directory}/manager.sock`,
    async [Symbol.asyncDispose]() {
      const problems: unknown[] = [];
      const attempt = (action: () => unknown) =>
        Promise.resolve().then(action).catch((error) => problems.push(error));
      await attempt(() => program.stop());
      await attempt(() => checkFiles(program));
      await attempt(() => server[Symbol.asyncDispose]());
      if (problems.length > 0) throw problems[0];
    },
  };
}

/**
 * Does what an operator asks for.
 * @param refusals statuses that are no surprise
 */
export async function admin(
  cluster: Cluster,
  method: string,
  path: string,
  refusals: readonly number[] = [],
): Promise<Admin> {
  const response = await fetch(`${cluster.url}/admin${path}`, {
    method,
    headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
  });
  const text = await response.text();
  assert.ok(response.ok || refusals.includes(response.status), `${method} ${path}: ${text}`);
  return JSON.parse(text);
}

/** What the admin routes answer with, as far as it is used here. */
export interface Admin {
  readonly instances: readonly { readonly id: string; readonly state: string }[];
  readonly requests: readonly { readonly id: string }[];
}

/** Instances that serve, as the manager tells API servers. */
export async function servingInstances(cluster: Cluster): Promise<readonly InstanceRegistration[]> {
  const list = Promise.withResolvers<InstanceList>();
  const manager = await openBus({ clusterKey: cluster.clusterKey }).connect(
    cluster.managerAddress,
    {
      notifications: { instances: ({ data }) => list.resolve(data) },
    },
    { timeoutMs: ANSWER_TIMEOUT_MS },
  );
  try {
    await manager.call("subscribe", { data: null }, { timeoutMs: ANSWER_TIMEOUT_MS });
    return (await list.promise).instances;
  } finally {
    await manager.close();
  }
}

/** What an instance says of itself. */
export async function statusOf(
  { clusterKey }: Cluster,
  { address }: InstanceRegistration,
): Promise<InstanceInfo> {
  const instance = await openBus({ clusterKey }).connect(address, {}, {
    timeoutMs: ANSWER_TIMEOUT_MS,
  });
  try {
    const { data } = await instance.call("status", { data: null }, {
      timeoutMs: ANSWER_TIMEOUT_MS,
    });
    return data;
  } finally {
    await instance.close();
  }
}

export async function pidOf(cluster: Cluster, instanceId: string): Promise<number> {
  const found = (await servingInstances(cluster)).find((one) => one.instanceId === instanceId);
  assert.ok(found, `${instanceId} does not serve`);
  return found.pid;
}

/**
 * Waits until no request is left anywhere and every block is free.
 * @param numInstances how many instances serve then; default: any number
 */
export async function waitUntilEmpty(cluster: Cluster, numInstances?: number): Promise<void> {
  let last = "nothing known";
  const untilMs = performance.now() + EMPTY_LIMIT_MS;
  const isEmpty = async () => {
    // Answering what is asked here, the program is never silent.
    if (performance.now() > untilMs) throw new Error(`it was not in ${EMPTY_LIMIT_MS} ms`);
    try {
      const infos = await Promise.all(
        (await servingInstances(cluster)).map((one) => statusOf(cluster, one)),
      );
      const { requests } = await admin(cluster, "GET", "/requests");
      last = `${requests.length} requests; ${infos.map(describe).join("; ")}`;
      const isNumberRight = infos.length === (numInstances ?? infos.length);
      return isNumberRight && requests.length === 0 && infos.every(isIdle);
    } catch (error) {
      last = `${error}`; // one of them is starting or ending
      return false;
    }
  };
  try {
    await cluster.program.waitUntil(`${numInstances ?? "all"} instances were empty`, isEmpty);
  } catch (error) {
    throw new Error(`last seen: ${last}`, { cause: error });
  }
}

function isIdle(info: InstanceInfo): boolean {
  return info.runningRequests + info.waitingRequests + info.killedRequests === 0 &&
    info.freeBlocks === info.totalBlocks;
}

function describe(info: InstanceInfo): string {
  return `${info.instanceId}: ${info.runningRequests} running, ${info.waitingRequests} waiting, ` +
    `${info.killedRequests} killed, ${info.freeBlocks} of ${info.totalBlocks} blocks free`;
}

/** All instances that were asked for serve. */
export async function isReady({ url }: Pick<Cluster, "url">): Promise<boolean> {
  return await (await fetch(`${url}/is_ready`)).json();
}

/** Waits until as many instances serve as were asked for, in the place of those that were lost. */
export async function waitUntilReady(cluster: Cluster): Promise<void> {
  await cluster.program.waitUntil("it was ready again", () => isReady(cluster));
}

/** Runs the requests at the same time. */
export function runAll(
  cluster: Cluster,
  requests: readonly StreamRequest[],
  onEvent?: () => void,
): Promise<StreamResult[]> {
  return Promise.all(requests.map((request) => runStream(cluster.url, request, { onEvent })));
}

/** Fails at the first stream that differs, telling where. */
export function assertSameStreams(
  actual: readonly StreamResult[],
  expected: readonly StreamResult[],
): void {
  assert.equal(actual.length, expected.length);
  for (const [i, stream] of actual.entries()) {
    assert.deepEqual(stream, expected[i], `stream ${i} differs from that of the quiet run`);
  }
}

/** After an orderly stop there is nothing but logs. */
export function checkFiles(program: Program): void {
  const left = [...Deno.readDirSync(program.directory)].map(({ name }) => name);
  assert.deepEqual(left.filter((name) => !name.endsWith(".log")), [], "files were left behind");
  assert.deepEqual(runtimeDirectories(program), [], "the runtime directory was left behind");
}

/** Where a service has its sockets, when its environment is empty. */
export function runtimeDirectories({ pid, startedMs }: Program): string[] {
  const names = [...Deno.readDirSync("/tmp")].map(({ name }) => name);
  const paths = names.filter((name) => name.startsWith(`llumnix-${pid}-`))
    .map((name) => `/tmp/${name}`);
  // Others may have had the same pid before.
  return paths.filter((path) => Deno.statSync(path).mtime!.getTime() >= startedMs);
}
