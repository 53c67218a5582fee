/** A state of a cluster in which every field has a value. */
import type { ClusterState, InstanceLoad } from "../../src/core/protocol/monitoring.ts";
import { BucketCounts } from "../../src/core/stats/bucket_counts.ts";

export function instanceLoad(instanceId: string, more: Partial<InstanceLoad> = {}): InstanceLoad {
  return {
    instanceId,
    instanceType: "both",
    state: "serving",
    pid: 7,
    hostName: "gpu-1",
    totalBlocks: 100,
    usedBlocks: 25,
    load: -3,
    runningRequests: 2,
    waitingRequests: 1,
    killedRequests: 0,
    blockSize: 16,
    backend: "gloo",
    executor: "cpu",
    migrationLoad: -4,
    freeness: 37.5,
    runningHighPriorityRequests: 1,
    pendingRequests: 0,
    dispatchedRequests: 9,
    firstWaitingMs: 1500,
    lastStepKind: "decode",
    lastStepMs: 20,
    totals: { promptTokens: 100, outputTokens: 50, preemptions: 3 },
    ...more,
  };
}

function bucketsOf(bounds: readonly number[], ...values: number[]) {
  const counts = new BucketCounts(bounds);
  for (const value of values) counts.add(value);
  return counts;
}

export function clusterState(instances: readonly InstanceLoad[]): ClusterState {
  return {
    managerStartedMs: 1,
    timestampMs: 2,
    instances,
    expectedInstances: instances.length,
    hosts: [{
      hostName: "gpu-1",
      state: "serving",
      instances: instances.length,
      availableInstances: instances.length,
      runningRequests: 2 * instances.length,
      waitingRequests: instances.length,
    }],
    leadership: {
      isLeader: true,
      epoch: 3,
      leader: "gpu-1-7-abcdef01",
      address: "tcp:10.0.0.1:7000",
      storeProblem: null,
    },
    statistics: {
      dispatches: { placed: 9, refused: 1 },
      dispatchSeconds: bucketsOf([1e-5, 1e-4], 2e-5, 1),
      migrations: [
        { backend: "gloo", outcome: "committed", phase: "commit", count: 4 },
        { backend: "gloo", outcome: "aborted_source", phase: "copying", count: 1 },
      ],
      moves: [{
        backend: "gloo",
        tokens: 400,
        blocks: 25,
        bytes: 1e9,
        transferSeconds: 0.5,
        downtimeSeconds: bucketsOf([0.01, 0.1], 0.02, 0.02, 0.02, 0.02),
        totalSeconds: bucketsOf([0.1, 1], 0.2, 0.2, 0.2, 0.2),
        bytesPerSecond: bucketsOf([1e9], 2e9, 2e9, 2e9, 2e9),
      }],
      scaling: { up: 2, down: 1 },
      instances: { started: 3, stopped: 1, lost: 1, startFailed: 0 },
      resumedRequests: 5,
    },
  };
}
