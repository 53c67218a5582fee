/** Cost of a dispatch decision and of a report: `deno bench test/manager/dispatch`. */
import { Random } from "../../../src/core/random.ts";
import { Dispatcher } from "../../../src/manager/dispatch/dispatcher.ts";
import { idleInfo } from "../support.ts";

const NUM_INSTANCES = 256;
const ids = Array.from({ length: NUM_INSTANCES }, (_, i) => `instance-${i}`);

/** A cluster in work, and the ids that its instances have yet to report. */
function busyCluster(dispatchPolicy: "balanced" | "load" | "queue" | "rr") {
  const random = new Random(1);
  const dispatcher = new Dispatcher({
    dispatchPolicy,
    loadMetric: "remaining_steps",
    numDispatchInstances: null,
    priorityHeadroomBlocks: null,
  }, random);
  dispatcher.setInstances(ids.map((instanceId) => ({
    registration: { instanceId, instanceType: "both", blockSize: 16, totalBlocks: 851 },
    isDraining: false,
  })));
  const unreported = new Map(ids.map((id) => [id, [] as string[]]));
  const reportOf = (instanceId: string, receivedRequestIds: readonly string[]) => {
    const usedBlocks = random.below(851);
    return idleInfo(instanceId, {
      totalBlocks: 851,
      usedBlocks,
      freeBlocks: 851 - usedBlocks,
      runningRequests: 1 + random.below(40),
      waitingRequests: random.below(3),
      receivedRequestIds,
    });
  };
  for (const id of ids) dispatcher.report(reportOf(id, []));
  let requests = 0;
  return {
    dispatch() {
      const requestId = `r${requests++}`;
      const nowMs = requests; // 1000 dispatches a second
      unreported.get(dispatcher.dispatch({ requestId, promptTokens: 300 }, nowMs)!)!.push(
        requestId,
      );
    },
    report(i: number) {
      const id = ids[i % NUM_INSTANCES];
      dispatcher.report(reportOf(id, unreported.get(id)!.splice(0)));
    },
  };
}

for (const policy of ["load", "queue", "balanced", "rr"] as const) {
  const cluster = busyCluster(policy);
  let i = 0;
  // With a report each time, or the account would grow without end.
  Deno.bench(`dispatch a request and take a report, ${NUM_INSTANCES} instances: ${policy}`, () => {
    cluster.dispatch();
    cluster.report(i++);
  });
}

{
  const cluster = busyCluster("load");
  let i = 0;
  Deno.bench(`take a report, ${NUM_INSTANCES} instances`, () => cluster.report(i++));
}
