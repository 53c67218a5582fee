/**
 * Cost of the manager: its share of one core with 256 instances, a polling interval of 50 ms and 1000
 * dispatches per second. Instances report as often as the manager asks them to when they join. The
 * instances and the API server are in another process, so that the figure is the manager's alone: its
 * decisions and its end of the sockets.
 */
import process from "node:process";
import { openBus } from "../../src/bus/open_bus.ts";
import { realClock, sleep } from "../../src/core/clock.ts";
import type { DispatchRequest } from "../../src/core/protocol/dispatch.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import { Manager } from "../../src/manager/manager.ts";
import { makeRuntimeDirectory } from "../../src/roles/runtime_directory.ts";
import { percentile, printTable } from "./table.ts";

const numInstances = 256;
const dispatchesPerSecond = 1000;
const pollingIntervalMs = 50;
const warmUpMs = 2_000;
const measuredMs = 5_000;
const runningPerInstance = 32;
const totalBlocks = 2000;

/** Process time of this process in ms. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Measures the manager in this process while another process acts as its cluster. */
export async function benchManager(): Promise<void> {
  const directory = makeRuntimeDirectory();
  const address = `unix:${directory.path}/manager.sock`;
  const manager = await Manager.listen({
    bus: openBus(),
    addresses: [address],
    options: {
      initialInstances: numInstances,
      loadMetric: "remaining_steps",
      dispatchPolicy: "load",
      numDispatchInstances: null,
      priorityHeadroomBlocks: null,
      pollingInterval: pollingIntervalMs / 1000,
      disableLogRequestsManager: true,
    },
    migration: {
      enableMigration: true,
      pairMigrationFrequency: 1,
      pairMigrationPolicy: "defrag_constrained",
      migrateOutThreshold: 3,
      requestMigrationPolicy: "SR",
      enableDefrag: true,
      enablePdDisagg: false,
    },
    launcher: { launch: () => Promise.reject(new Error("instances join by themselves")) },
    clock: realClock,
  });
  const load = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.url, address],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  try {
    while (manager.infos().length < numInstances) await sleep(realClock, 50);
    await sleep(realClock, warmUpMs);
    const before = {
      cpuMs: cpuMs(),
      ms: performance.now(),
      count: manager.statistics().dispatches,
    };
    await sleep(realClock, measuredMs);
    const elapsedMs = performance.now() - before.ms;
    const usedMs = cpuMs() - before.cpuMs;
    const dispatched = manager.statistics().dispatches - before.count;
    load.kill("SIGTERM");
    const latencies = JSON.parse(await new Response(load.stdout).text()) as number[];
    printTable(`Manager, ${numInstances} instances, polling interval ${pollingIntervalMs} ms`, [{
      "dispatches/s": (dispatched / elapsedMs * 1000).toFixed(0),
      "of one core": `${(usedMs / elapsedMs * 100).toFixed(1)}%`,
      "dispatch P50 ms": percentile(latencies, 50).toFixed(2),
      "dispatch P99 ms": percentile(latencies, 99).toFixed(2),
    }]);
  } finally {
    await load.status;
    await manager.stop();
    directory.remove();
  }
}

/** The cluster's process: prints the latencies of its dispatches when it is told to end. */
async function runLoad(address: string): Promise<void> {
  const bus = openBus();
  const received = new Map<string, string[]>();
  for (let i = 0; i < numInstances; i++) {
    const instanceId = `instance-${i}`;
    received.set(instanceId, []);
    const manager = await bus.connect(address, {
      calls: {
        migrate_out: () => {
          throw new Error("this benchmark does not migrate requests");
        },
      },
      notifications: { shutdown: () => {} },
    });
    const { data } = await manager.call("join", { data: { instanceId, isRunning: true } });
    const { infoIntervalMs } = data;
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
        totalBlocks,
        swapBlocks: 0,
        maxModelLen: 4096,
      },
    });
    setTimeout(() => {
      setInterval(() => {
        const receivedRequestIds = received.get(instanceId)!;
        received.set(instanceId, []);
        manager.notify("info", { data: reportOf(instanceId, receivedRequestIds) });
      }, infoIntervalMs);
    }, i % infoIntervalMs);
  }
  const latencies: number[] = [];
  Deno.addSignalListener("SIGTERM", () => {
    console.log(JSON.stringify(latencies));
    Deno.exit(0);
  });
  const frontend = await bus.connect(address, { notifications: { instances: () => {} } });
  await frontend.call("subscribe", { data: null });
  const startedMs = performance.now();
  let sent = 0;
  setInterval(() => {
    const due = (performance.now() - startedMs) / 1000 * dispatchesPerSecond;
    for (; sent < due; sent++) {
      const request: DispatchRequest = { requestId: `request-${sent}`, promptTokens: 200 };
      const sentMs = performance.now();
      frontend.call("dispatch", { data: request }).then(({ data }) => {
        if (sentMs - startedMs >= warmUpMs) latencies.push(performance.now() - sentMs);
        received.get(data.instanceId)!.push(request.requestId);
      });
    }
  }, 1);
}

/** The report of a busy instance, about as large as an engine's. */
function reportOf(instanceId: string, receivedRequestIds: readonly string[]): InstanceInfo {
  const usedBlocks = 1000 + Math.floor(Math.random() * 900);
  return {
    instanceId,
    instanceType: "both",
    timestampMs: performance.timeOrigin + performance.now(),
    stepId: 123456,
    totalBlocks,
    freeBlocks: totalBlocks - usedBlocks,
    usedBlocks,
    watermarkBlocks: 20,
    runningRequests: runningPerInstance,
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
    lastStepBatchedTokens: runningPerInstance,
    lastStepSequences: runningPerInstance,
    lastStepContextTokens: 400 * runningPerInstance,
    lastStepLatencyMs: 21.5,
    runningSequenceLengths: Array.from({ length: runningPerInstance }, (_, i) => 400 + i),
    maxOutputTokens: 1000 * runningPerInstance,
    finishedRequestIds: receivedRequestIds,
    receivedRequestIds,
    totals: { promptTokens: 100_000, outputTokens: 100_000, preemptions: 10 },
  };
}

if (import.meta.main) {
  const [address] = Deno.args;
  await (address === undefined ? benchManager() : runLoad(address));
}
