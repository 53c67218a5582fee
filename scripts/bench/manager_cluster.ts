/**
 * A cluster for the manager that is measured, in a process of its own. The instances report on the main
 * thread. The API server dispatches on another one, so that its latencies do not contain the work of the
 * instances.
 */
import type { Bus, Peer } from "../../src/bus/bus.ts";
import { openBus } from "../../src/bus/open_bus.ts";
import type { DispatchRequest } from "../../src/core/protocol/dispatch.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";

/** What the process is told: JSON, in its first argument. */
export interface ClusterOrder {
  readonly managerAddress: string;
  /** Base64 of the cluster's key, for TLS; null: TCP without it. */
  readonly clusterKey: string | null;
  readonly numInstances: number;
  readonly dispatchesPerSecond: number;
  /** Dispatches of the first `warmUpMs` are not in the result. */
  readonly warmUpMs: number;
}

/** What the process prints when it gets SIGTERM: JSON. */
export interface ClusterResult {
  readonly dispatchLatenciesMs: readonly number[];
  /** That all instances sent together. */
  readonly reportsPerSecond: number;
}

/** From the API server: requests that it sends to their instances, or, at the end, its latencies. */
type FromApiServer =
  | { readonly placed: readonly { readonly instanceId: string; readonly requestId: string }[] }
  | { readonly latenciesMs: readonly number[] };

const RUNNING_PER_INSTANCE = 32;
const TOTAL_BLOCKS = 2000;
const JOINS_AT_ONCE = 64;

/** An instance that reports as often as the manager asks for. */
class ReportingInstance {
  receivedRequestIds: string[] = [];
  sentReports = 0;
  #manager: Peer | null = null;
  #infoIntervalMs = 0;
  #report: (() => void) | null = null;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(readonly instanceId: string) {}

  async join(bus: Bus, managerAddress: string): Promise<void> {
    const manager = await bus.connect(managerAddress, {
      calls: {
        migrate_out: () => {
          throw new Error("this benchmark does not migrate requests");
        },
      },
      notifications: {
        shutdown: () => Deno.exit(1),
        report_interval: ({ data }) => this.#setInterval(data.infoIntervalMs),
      },
    });
    const { instanceId } = this;
    const { data } = await manager.call("join", { data: { instanceId, isRunning: true } });
    await manager.call("register", {
      data: {
        instanceId,
        instanceType: "both",
        address: `unix:${instanceId}`,
        pid: 1,
        model: "bench",
        executor: "none",
        dtype: "float16",
        blockSize: 16,
        totalBlocks: TOTAL_BLOCKS,
        swapBlocks: 0,
        maxModelLen: 4096,
      },
    });
    this.#manager = manager;
    this.#setInterval(data.infoIntervalMs);
  }

  /** @param share from 0 to 1: instances do not report at the same moment */
  beginToReport(share: number): void {
    const report = () => {
      const data = reportOf(this.instanceId, this.receivedRequestIds);
      this.#manager!.notify("info", { data });
      this.receivedRequestIds = [];
      this.sentReports++;
    };
    this.#report = report;
    setTimeout(() => this.#setInterval(this.#infoIntervalMs), share * this.#infoIntervalMs);
  }

  #setInterval(infoIntervalMs: number): void {
    this.#infoIntervalMs = infoIntervalMs;
    clearInterval(this.#timer);
    if (this.#report !== null) this.#timer = setInterval(this.#report, infoIntervalMs);
  }
}

async function runInstances(order: ClusterOrder): Promise<void> {
  const instances = new Map<string, ReportingInstance>();
  for (let i = 0; i < order.numInstances; i++) {
    instances.set(`instance-${i}`, new ReportingInstance(`instance-${i}`));
  }
  const bus = busOf(order);
  const waiting = [...instances.values()];
  await Promise.all(Array.from({ length: JOINS_AT_ONCE }, async () => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      await next.join(bus, order.managerAddress);
    }
  }));
  [...instances.values()].forEach((one, i) => one.beginToReport(i / instances.size));
  const startedMs = performance.now();
  const before = sentBy(instances.values());
  const apiServer = new Worker(import.meta.url, { type: "module", name: JSON.stringify(order) });
  apiServer.onmessage = ({ data }: MessageEvent<FromApiServer>) => {
    if ("placed" in data) {
      for (const { instanceId, requestId } of data.placed) {
        instances.get(instanceId)!.receivedRequestIds.push(requestId);
      }
      return;
    }
    const seconds = (performance.now() - startedMs) / 1000;
    const result: ClusterResult = {
      dispatchLatenciesMs: data.latenciesMs,
      reportsPerSecond: (sentBy(instances.values()) - before) / seconds,
    };
    console.log(JSON.stringify(result));
    Deno.exit(0);
  };
  Deno.addSignalListener("SIGTERM", () => apiServer.postMessage("end"));
}

/** The bus of a process that has this key, or none. */
export function busOf({ clusterKey }: Pick<ClusterOrder, "clusterKey">): Bus {
  return openBus({
    clusterKey: clusterKey === null ? "insecure" : Uint8Array.fromBase64(clusterKey),
  });
}

function sentBy(instances: Iterable<ReportingInstance>): number {
  return [...instances].reduce((sum, one) => sum + one.sentReports, 0);
}

async function runApiServer(order: ClusterOrder): Promise<void> {
  const tell = (message: FromApiServer) => (self as unknown as Worker).postMessage(message);
  const latenciesMs: number[] = [];
  const manager = await busOf(order).connect(order.managerAddress, {
    notifications: { instances: () => {} },
  });
  await manager.call("subscribe", { data: null });
  let placed: { instanceId: string; requestId: string }[] = [];
  const startedMs = performance.now();
  const dispatch = async (request: DispatchRequest) => {
    const sentMs = performance.now();
    const { data: { instanceId } } = await manager.call("dispatch", { data: request });
    if (sentMs - startedMs >= order.warmUpMs) latenciesMs.push(performance.now() - sentMs);
    placed.push({ instanceId, requestId: request.requestId });
  };
  let sent = 0;
  const timer = setInterval(() => {
    const due = (performance.now() - startedMs) / 1000 * order.dispatchesPerSecond;
    for (; sent < due; sent++) dispatch({ requestId: `request-${sent}`, promptTokens: 200 });
    tell({ placed });
    placed = [];
  }, 1);
  self.addEventListener("message", () => {
    clearInterval(timer);
    tell({ latenciesMs });
  });
}

/** The report of a busy instance, about as large as an engine's. */
function reportOf(instanceId: string, receivedRequestIds: readonly string[]): InstanceInfo {
  const usedBlocks = 1000 + Math.floor(Math.random() * 900);
  return {
    instanceId,
    instanceType: "both",
    timestampMs: performance.timeOrigin + performance.now(),
    stepId: 123456,
    totalBlocks: TOTAL_BLOCKS,
    freeBlocks: TOTAL_BLOCKS - usedBlocks,
    usedBlocks,
    watermarkBlocks: 20,
    runningRequests: RUNNING_PER_INSTANCE,
    runningHighPriorityRequests: 0,
    leavingRequests: 0,
    waitingRequests: 2,
    killedRequests: 0,
    firstWaitingBlocks: 10,
    waiting: [10, 15].map((blocks, i) => ({ requestId: `w${i}`, blocks, arrivalMs: 0 })),
    allWaitingBlocks: 25,
    prefillBlocks: 0,
    firstWaitingMs: 12.25,
    lastRunningBlocks: 40,
    lastStepKind: "decode",
    lastStepBatchedTokens: RUNNING_PER_INSTANCE,
    lastStepSequences: RUNNING_PER_INSTANCE,
    lastStepContextTokens: 400 * RUNNING_PER_INSTANCE,
    lastStepLatencyMs: 21.5,
    runningSequenceLengths: Array.from({ length: RUNNING_PER_INSTANCE }, (_, i) => 400 + i),
    maxOutputTokens: 1000 * RUNNING_PER_INSTANCE,
    finishedRequestIds: receivedRequestIds,
    receivedRequestIds,
    totals: { promptTokens: 100_000, outputTokens: 100_000, preemptions: 10 },
  };
}

if ("WorkerGlobalScope" in globalThis) await runApiServer(JSON.parse(self.name) as ClusterOrder);
else if (import.meta.main) await runInstances(JSON.parse(Deno.args[0]) as ClusterOrder);
