import type { ManagerEvent } from "../../manager/manager_event.ts";
import { Manager } from "../../manager/manager.ts";
import { generateWorkload } from "../../workload/generate.ts";
import { requestLengths } from "../../workload/paper_lengths.ts";
import { replayWorkload } from "../../workload/replay.ts";
import type { WorkloadRequest } from "../../workload/request.ts";
import { readTrace } from "../../workload/trace_file.ts";
import { ClusterSampler } from "./cluster_sampler.ts";
import { DirectNetwork } from "./direct_bus.ts";
import { ExperimentClient } from "./experiment_client.ts";
import type { ClusterConfig, WorkloadConfig } from "./experiment_config.ts";
import { ExperimentInstances } from "./experiment_instances.ts";
import { ExperimentLoop } from "./experiment_loop.ts";
import { MigrationRecorder } from "./migration_recorder.ts";
import { RequestRecorder } from "./request_recorder.ts";
import { type RunResult, summarizeRun } from "./run_result.ts";

const MANAGER_ADDRESS = "inproc:manager";
/** Delay of a message between two processes over TCP on one network, as measured between two hosts. */
const NETWORK_DELAY_MS = 0.1;
/** The run fails if requests are outstanding and no token comes for this long: no step takes as long. */
const STALL_MS = 3_600_000;

export interface ExperimentRunArgs {
  readonly config: ClusterConfig;
  readonly workload: WorkloadConfig;
  readonly seed: number;
  /** Time that an added instance takes to start. The initial instances serve from the beginning. */
  readonly startMs: number;
  /** Called now and then with the number of requests that have ended. */
  readonly onProgress?: (ended: number) => void;
  /** Called at the end with what was recorded of each request. */
  readonly onEnd?: (recorder: RequestRecorder) => void;
}

/**
 * Runs one workload on one simulated cluster: the production manager, instances, schedulers and
 * migrations on a virtual clock.
 * @throws {UsageError} the workload or the options of the instances are impossible
 */
export async function runExperiment(args: ExperimentRunArgs): Promise<RunResult> {
  const { config, workload, seed } = args;
  const startedMs = performance.now();
  const loop = new ExperimentLoop();
  const network = new DirectNetwork({
    clock: loop.clock,
    delayMs: NETWORK_DELAY_MS,
    onSettled: loop.noteSettled,
  });
  const clock = loop.settlingClock();
  const recorder = new RequestRecorder();
  const migrations = new MigrationRecorder();
  let hasBegun = false;
  const instances = new ExperimentInstances({
    config,
    loop,
    network,
    observer: recorder,
    startMs: () => hasBegun ? args.startMs : 0,
  });
  const client = new ExperimentClient({
    bus: network.node(),
    managerAddress: MANAGER_ADDRESS,
    clock,
    recorder,
    requestMs: instances.simulation.profile.request?.msPerRequest ?? 0,
    ignorePriorities: config.ignorePriorities,
  });
  const sampler = new ClusterSampler({ clock, instances });
  let failure: unknown = null;
  const onEvent = (event: ManagerEvent) => migrations.take(event);
  const start = async () => {
    const manager = await Manager.listen({
      bus: network.node(),
      addresses: [MANAGER_ADDRESS],
      options: config.manager,
      migration: config.migration,
      scaling: config.scaling,
      drainTimeoutMs: Infinity, // as in the paper: a removed instance ends its requests first
      launcher: instances,
      clock,
      seed,
      onEvent,
    });
    await manager.startInstances();
    await client.connect();
    hasBegun = true;
    sampler.start();
    await feed(requestsOf(workload, seed), loop, client);
    sampler.stopAveraging();
    return manager;
  };
  let isFed = false;
  start().then(() => isFed = true, (error) => failure = error ?? new Error("no reason"));

  let reported = 0;
  await loop.runUntil(() => {
    const { numEnded, numRequests, lastProgressMs } = recorder;
    if (numEnded - reported >= 100) args.onProgress?.(reported = numEnded);
    if (loop.clock.nowMs() - lastProgressMs > STALL_MS && numEnded < numRequests) {
      failure ??= new Error(`${numRequests - numEnded} requests are stuck: no event is left`);
    }
    return failure !== null || (isFed && numEnded === numRequests);
  });
  if (failure !== null) throw failure;
  args.onProgress?.(recorder.numEnded);
  args.onEnd?.(recorder);
  return summarizeRun({
    config,
    workload,
    seed,
    recorder,
    migrations,
    sampler,
    engineSteps: instances.numSteps,
    simulatedMs: loop.clock.nowMs(),
    wallMs: performance.now() - startedMs,
  });
}

/** The requests in order of arrival, made one by one. */
export function requestsOf(workload: WorkloadConfig, seed: number): Iterable<WorkloadRequest> {
  const { arrivals, lengths, trace, numRequests, highPriority } = workload;
  if (trace !== null) {
    return replayWorkload({ rows: readTrace(trace), arrivals, numRequests, highPriority, seed });
  }
  return generateWorkload({
    arrivals: arrivals!,
    lengths: requestLengths(lengths!),
    numRequests: numRequests!,
    highPriority,
    seed,
  });
}

/** Submits each request when its time has come; resolves after the last. */
function feed(
  requests: Iterable<WorkloadRequest>,
  loop: ExperimentLoop,
  client: ExperimentClient,
): Promise<void> {
  const { clock } = loop;
  const startMs = clock.nowMs();
  const iterator = requests[Symbol.iterator]();
  return new Promise((resolve, reject) => {
    const next = () => {
      try {
        const { value, done } = iterator.next();
        if (done) return end();
        clock.after(startMs + value.arrivalMs - clock.nowMs(), () => {
          client.submit(value);
          next();
        });
      } catch (error) {
        reject(error);
        loop.noteSettled();
      }
    };
    const end = () => {
      resolve();
      loop.noteSettled();
    };
    next();
  });
}
