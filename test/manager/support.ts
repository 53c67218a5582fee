import type { Bus, Listener, Peer } from "../../src/bus/bus.ts";
import type { ErrorRecord } from "../../src/core/errors.ts";
import type {
  GenerateRequest,
  RequestId,
  RequestOutput,
} from "../../src/core/protocol/generate.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import type { InstanceRegistration, JoinRequest } from "../../src/core/protocol/membership.ts";
import { samplingDefaults } from "../../src/core/sampling.ts";
import type { ManagerOptions } from "../../src/core/options.ts";
import type {
  ExitStatus,
  InstanceLauncher,
  LaunchedInstance,
  LaunchRequest,
} from "../../src/manager/fleet/launcher.ts";

export const managerOptions: ManagerOptions = {
  initialInstances: 2,
  loadMetric: "remaining_steps",
  dispatchPolicy: "rr",
  numDispatchInstances: null,
  priorityHeadroomBlocks: null,
  pollingInterval: 0.1,
  disableLogRequestsManager: false,
};

export function registrationOf(instanceId: string, address: string): InstanceRegistration {
  return {
    instanceId,
    instanceType: "both",
    address,
    pid: 1,
    model: "test",
    executor: "scripted",
    dtype: "float32",
    blockSize: 16,
    totalBlocks: 100,
    swapBlocks: 0,
    maxModelLen: 1000,
    migration: { backend: "test", endpoint: {} },
  };
}

/** The report of an instance of 100 blocks without requests; `overrides` win. */
export function idleInfo(
  instanceId: string,
  overrides: Partial<InstanceInfo> = {},
): InstanceInfo {
  return {
    instanceId,
    instanceType: "both",
    timestampMs: 0,
    stepId: 0,
    totalBlocks: 100,
    freeBlocks: 100,
    usedBlocks: 0,
    watermarkBlocks: 1,
    runningRequests: 0,
    runningHighPriorityRequests: 0,
    leavingRequests: 0,
    waitingRequests: 0,
    killedRequests: 0,
    firstWaitingBlocks: 0,
    waiting: [],
    prefillBlocks: 0,
    allWaitingBlocks: 0,
    firstWaitingMs: 0,
    lastRunningBlocks: 0,
    lastStepKind: "idle",
    lastStepBatchedTokens: 0,
    lastStepSequences: 0,
    lastStepContextTokens: 0,
    lastStepLatencyMs: 0,
    runningSequenceLengths: [],
    maxOutputTokens: 0,
    finishedRequestIds: [],
    receivedRequestIds: [],
    totals: { promptTokens: 0, outputTokens: 0, preemptions: 0 },
    ...overrides,
  };
}

export function generateRequest(
  requestId: RequestId,
  overrides: Partial<GenerateRequest> = {},
): GenerateRequest {
  return {
    requestId,
    frontendId: "frontend",
    promptTokenIds: [1, 2, 3],
    outputTokenIds: [],
    params: {
      ...samplingDefaults,
      maxTokens: 8,
      temperature: 0,
      seed: 0,
      eosTokenIds: [],
    },
    arrivalMs: 0,
    ...overrides,
  };
}

/** An instance whose every move the test decides. */
export class ScriptedInstance implements LaunchedInstance {
  readonly pid = 1;
  readonly #exit = Promise.withResolvers<ExitStatus>();
  readonly exited = this.#exit.promise;
  readonly signals: string[] = [];
  /** Ignores requests to stop other than SIGKILL. */
  isStubborn = false;
  readonly requests = new Map<RequestId, GenerateRequest>();
  readonly aborted: RequestId[] = [];
  /** What it is besides {@linkcode registrationOf}. */
  settings: Partial<InstanceRegistration> = {};
  /** Called for each request before it is queued; may refuse or outlast the instance. */
  onGenerate: (request: GenerateRequest) => void | Promise<void> = () => {};
  frontend!: Peer;
  #manager!: Peer;
  #listener: Listener | null = null;
  #hasExited = false;

  constructor(private readonly bus: Bus, readonly launch: LaunchRequest) {}

  get id(): string {
    return this.launch.instanceId;
  }

  get manager(): Peer {
    return this.#manager;
  }

  /** @param more of the request */
  async join(more: Partial<JoinRequest> = {}): Promise<void> {
    this.#manager = await this.bus.connect(this.launch.managerAddress, {
      notifications: {
        shutdown: () => {
          if (!this.isStubborn) this.exit({ code: 0, signal: null });
        },
      },
    });
    const data: JoinRequest = { instanceId: this.id, ...more };
    await this.#manager.call("join", { data });
  }

  async register(): Promise<void> {
    this.#listener = await this.bus.listen(`inproc:${this.id}`, {
      calls: {
        hello: (_, peer) => {
          this.frontend = peer;
          return { data: null };
        },
        generate: async ({ data }) => {
          const request = data;
          await this.onGenerate(request);
          this.requests.set(request.requestId, request);
          return { data: null };
        },
      },
      notifications: {
        abort: ({ data }) => {
          this.aborted.push(...data.requestIds);
        },
      },
    });
    const registration = { ...registrationOf(this.id, this.#listener.address), ...this.settings };
    await this.#manager.call("register", { data: registration });
  }

  send(...outputs: RequestOutput[]): void {
    this.frontend.notify("outputs", { data: { outputs } });
  }

  fail(error: ErrorRecord): void {
    this.#manager.notify("failed", { data: error });
  }

  /** As a process ends: connections close with it. */
  async exit(status: ExitStatus): Promise<void> {
    this.#hasExited = true;
    await this.#manager?.close();
    await this.#listener?.close();
    this.#exit.resolve(status);
  }

  stop(signal: "SIGTERM" | "SIGKILL"): void {
    if (this.#hasExited) return;
    this.signals.push(signal);
    if (signal === "SIGKILL" || !this.isStubborn) this.exit({ code: null, signal });
  }
}

/** Launches instances that wait for the test's orders. */
export class ScriptedLauncher implements InstanceLauncher {
  readonly instances: ScriptedInstance[] = [];

  /** @param onLaunch what an instance does by itself; default: it joins and registers */
  constructor(
    private readonly bus: Bus,
    private readonly onLaunch = async (instance: ScriptedInstance): Promise<void> => {
      await instance.join();
      await instance.register();
    },
  ) {}

  launch(request: LaunchRequest): Promise<LaunchedInstance> {
    const instance = new ScriptedInstance(this.bus, request);
    this.instances.push(instance);
    this.onLaunch(instance).catch(() => {}); // the test may end it before it is done
    return Promise.resolve(instance);
  }
}
