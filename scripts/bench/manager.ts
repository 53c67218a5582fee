/**
 * Cost of the manager: its share of one core, and how long an API server waits for the decision about a
 * request, with a polling interval of 50 ms and 1000 dispatches per second. Instances report as often as
 * the manager asks them to when they join. Instances and API server are in another process
 * (`manager_cluster.ts`), so that the figures are the manager's: its decisions and its end of the sockets.
 */
import process from "node:process";
import { realClock, sleep } from "../../src/core/clock.ts";
import { Manager } from "../../src/manager/manager.ts";
import { freePort } from "../../test/free_port.ts";
import { busOf, type ClusterOrder, type ClusterResult } from "./manager_cluster.ts";
import { percentile, printTable } from "./table.ts";

const clusters: readonly ManagerLoad[] = [
  { numInstances: 256, isEncrypted: false },
  { numInstances: 1024, isEncrypted: false },
  { numInstances: 1024, isEncrypted: true },
];
const dispatchesPerSecond = 1000;
const pollingIntervalMs = 50;
const warmUpMs = 3_000;
const measuredMs = 10_000;
/** Time for the instances to join. */
const joinMs = 60_000;

/** What a manager has to do with. */
export interface ManagerLoad {
  readonly numInstances: number;
  /** Instances and API server are connected by TLS; else by TCP. */
  readonly isEncrypted: boolean;
}

/** What a manager costs. */
export interface ManagerCost {
  /** From the first join to the last. */
  readonly joinSeconds: number;
  readonly dispatchesPerSecond: number;
  /** That its instances sent. */
  readonly reportsPerSecond: number;
  /** Processor time by wall time. */
  readonly coreShare: number;
  readonly dispatchLatenciesMs: readonly number[];
}

/** Measures the manager in this process while another process acts as its cluster. */
export async function benchManager(): Promise<void> {
  const rows = [];
  for (const load of clusters) {
    const cost = await measureManager(load);
    rows.push({
      instances: String(load.numInstances),
      by: load.isEncrypted ? "TLS" : "TCP",
      "joined in s": cost.joinSeconds.toFixed(1),
      "reports/s": cost.reportsPerSecond.toFixed(0),
      "dispatches/s": cost.dispatchesPerSecond.toFixed(0),
      "of one core": `${(cost.coreShare * 100).toFixed(1)}%`,
      "dispatch P50 ms": percentile(cost.dispatchLatenciesMs, 50).toFixed(2),
      "P99 ms": percentile(cost.dispatchLatenciesMs, 99).toFixed(2),
      "P99.9 ms": percentile(cost.dispatchLatenciesMs, 99.9).toFixed(2),
    });
  }
  printTable(`Manager, polling interval ${pollingIntervalMs} ms`, rows);
}

/**
 * @param onMeasure called when the time that is measured begins
 * @throws {Error} the instances do not join in time
 */
export async function measureManager(
  { numInstances, isEncrypted }: ManagerLoad,
  onMeasure: () => void = () => {},
): Promise<ManagerCost> {
  const managerAddress = `tcp:127.0.0.1:${freePort()}`;
  const clusterKey = isEncrypted ? crypto.getRandomValues(new Uint8Array(32)).toBase64() : null;
  const manager = await Manager.listen({
    bus: busOf({ clusterKey }),
    addresses: [managerAddress],
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
  const order: ClusterOrder = {
    ...{ managerAddress, clusterKey, numInstances, dispatchesPerSecond, warmUpMs },
  };
  const script = new URL("./manager_cluster.ts", import.meta.url).href;
  const cluster = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, JSON.stringify(order)],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  try {
    const startMs = performance.now();
    let firstMs = Infinity;
    for (let joined = 0; joined < numInstances; await sleep(realClock, 20)) {
      joined = manager.numInstances;
      if (joined > 0) firstMs = Math.min(firstMs, performance.now());
      if (performance.now() - startMs > joinMs) {
        throw new Error(`only ${joined} of ${numInstances} instances joined`);
      }
    }
    const joinedMs = performance.now() - firstMs;
    while (manager.statistics().dispatches === 0) await sleep(realClock, 20);
    await sleep(realClock, warmUpMs);
    onMeasure();
    const before = {
      cpuMs: cpuMs(),
      ms: performance.now(),
      dispatches: manager.statistics().dispatches,
    };
    await sleep(realClock, measuredMs);
    const elapsedMs = performance.now() - before.ms;
    const usedMs = cpuMs() - before.cpuMs;
    const dispatches = manager.statistics().dispatches - before.dispatches;
    cluster.kill("SIGTERM");
    const result = JSON.parse(await new Response(cluster.stdout).text()) as ClusterResult;
    return {
      joinSeconds: joinedMs / 1000,
      dispatchesPerSecond: dispatches / elapsedMs * 1000,
      reportsPerSecond: result.reportsPerSecond,
      coreShare: usedMs / elapsedMs,
      dispatchLatenciesMs: result.dispatchLatenciesMs,
    };
  } finally {
    await manager.stop(); // ends the instances, if they still run
    await cluster.status;
  }
}

/** Process time of this process in ms. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
