/** Two real instance processes with the CPU executor, driven over the bus as API servers do. */
import { openBus } from "../../src/bus/open_bus.ts";
import type { Peer } from "../../src/bus/bus.ts";
import { realClock, sleep } from "../../src/core/clock.ts";
import type { GenerateRequest, OutputBatch } from "../../src/core/protocol/generate.ts";
import type { InstanceRegistration } from "../../src/core/protocol/membership.ts";
import type { MigrationReport } from "../../src/core/protocol/migration.ts";
import { Manager } from "../../src/manager/manager.ts";
import { ProcessLauncher } from "../../src/roles/process_launcher.ts";
import { makeRuntimeDirectory } from "../../src/roles/runtime_directory.ts";
import { endless } from "./models.ts";
import { programCommand } from "./service.ts";

const FRONTEND_ID = "bench";
const POLL_MS = 5;

/** A request and the times at which its tokens came. */
export interface Followed {
  readonly requestId: string;
  readonly tokenMs: number[];
}

export interface BenchInstance {
  readonly registration: InstanceRegistration;
  readonly peer: Peer;
  /** When the outputs of the instance's steps came. */
  readonly stepMs: number[];
}

export class InstancePair implements AsyncDisposable {
  readonly #manager: Manager;
  readonly #removeDirectory: () => void;
  readonly #followed = new Map<string, Followed>();
  #instances: BenchInstance[] = [];
  #numOrders = 0;

  private constructor(manager: Manager, removeDirectory: () => void) {
    this.#manager = manager;
    this.#removeDirectory = removeDirectory;
  }

  /** @param engineArgv arguments of both instances */
  static async start(engineArgv: readonly string[]): Promise<InstancePair> {
    const bus = openBus();
    const directory = makeRuntimeDirectory();
    const manager = await Manager.listen({
      bus,
      addresses: [`unix:${directory.path}/manager.sock`],
      options: {
        initialInstances: 2,
        loadMetric: "remaining_steps",
        dispatchPolicy: "rr",
        numDispatchInstances: null,
        priorityHeadroomBlocks: null,
        pollingInterval: 0.05,
        disableLogRequestsManager: true,
      },
      migrationGroup: { secret: crypto.randomUUID(), initTimeoutMs: 10_000 },
      launcher: new ProcessLauncher({
        hostShare: 2,
        engineArgv: [...engineArgv, "--log-level=warning"],
        command: await programCommand(),
      }),
      clock: realClock,
    });
    const pair = new InstancePair(manager, () => directory.remove());
    await manager.startInstances();
    for (const registration of manager.instances()) {
      const stepMs: number[] = [];
      const peer = await bus.connect(registration.address, {
        notifications: {
          outputs: ({ data }) => pair.#note(data, stepMs),
        },
      });
      await peer.call("hello", { data: { frontendId: FRONTEND_ID } });
      pair.#instances.push({ registration, peer, stepMs });
    }
    return pair;
  }

  get instances(): readonly BenchInstance[] {
    return this.#instances;
  }

  /** Starts a request that runs until it is aborted; returns once it has its first token. */
  async begin(
    instance: BenchInstance,
    requestId: string,
    promptTokens: number,
  ): Promise<Followed> {
    const followed: Followed = { requestId, tokenMs: [] };
    this.#followed.set(requestId, followed);
    const request: GenerateRequest = {
      requestId,
      frontendId: FRONTEND_ID,
      promptTokenIds: Array.from({ length: promptTokens }, (_, i) => (i * 7919) % 40000 + 3),
      outputTokenIds: [],
      params: endless,
      arrivalMs: realClock.nowMs(),
    };
    await instance.peer.call("generate", { data: request });
    await until(() => followed.tokenMs.length > 0);
    return followed;
  }

  async abort(...requestIds: string[]): Promise<void> {
    for (const { peer } of this.#instances) peer.notify("abort", { data: { requestIds } });
    await sleep(realClock, 50);
  }

  /** @param isUrgent whether to copy at full speed, as when the source drains */
  async migrate(
    from: BenchInstance,
    to: BenchInstance,
    requestId: string,
    isUrgent = false,
  ): Promise<MigrationReport> {
    const { instanceId, address } = to.registration;
    const order = {
      migrationId: `bench-${this.#numOrders++}`,
      destination: { instanceId, address },
      policy: "SR" as const,
      requestId,
      isUrgent,
    };
    const { data: report } = await from.peer.call("migrate_out", { data: order }, {
      timeoutMs: 30_000,
    });
    if (report.outcome !== "committed") {
      throw new Error(`the request did not move: ${report.reason}`);
    }
    return report;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { peer } of this.#instances) await peer.close();
    await this.#manager.stop();
    this.#removeDirectory();
  }

  #note({ outputs }: OutputBatch, stepMs: number[]): void {
    const nowMs = performance.now();
    if (outputs.some(({ tokenIds }) => tokenIds.length > 0)) stepMs.push(nowMs);
    for (const { requestId, tokenIds } of outputs) {
      for (let i = 0; i < tokenIds.length; i++) {
        this.#followed.get(requestId)?.tokenMs.push(nowMs);
      }
    }
  }
}

async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await sleep(realClock, POLL_MS);
}
