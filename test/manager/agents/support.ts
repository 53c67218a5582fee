/** A manager whose instances run on hosts with agents, all in this process. */
import assert from "node:assert/strict";
import { InProcessBus } from "../../../src/bus/in_process_bus.ts";
import { realClock } from "../../../src/core/clock.ts";
import { LeaderFence } from "../../../src/core/leader_fence.ts";
import type { Log } from "../../../src/core/log.ts";
import type { AgentJoin } from "../../../src/core/protocol/agents.ts";
import type { ManagerOptions } from "../../../src/core/options.ts";
import { Manager, type ManagerConfig } from "../../../src/manager/manager.ts";
import type { ManagerEvent } from "../../../src/manager/manager_event.ts";
import { HostAgent } from "../../../src/agent/host_agent.ts";
import type { InstanceRecords, RecordedInstance } from "../../../src/agent/instance_records.ts";
import { until } from "../../conformance/bus.ts";
import { managerOptions, type ScriptedInstance, ScriptedLauncher } from "../support.ts";

export const quiet: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** Records of a host, which outlive its agents. */
export class MemoryRecords implements InstanceRecords {
  instances: readonly RecordedInstance[] = [];
  isCleared = false;
  read() {
    return this.instances;
  }
  write(instances: readonly RecordedInstance[]) {
    this.instances = instances;
  }
  clear() {
    this.isCleared = true;
  }
}

/** A host with an agent, and the instances that the agent has started. */
export interface TestHost {
  readonly agent: HostAgent;
  readonly launched: ScriptedInstance[];
  readonly records: MemoryRecords;
}

/** What the agent of a host with one slot tells. */
export function factsOf(host: string): AgentJoin {
  return {
    host,
    address: "test",
    pid: 1,
    machine: `machine of ${host}`,
    resources: { cudaDevices: 0, cores: 2, memoryBytes: 1e9 },
    slots: 1,
    initialInstances: 0,
    instances: [],
  };
}

export class World implements AsyncDisposable {
  readonly bus = new InProcessBus();
  readonly events: ManagerEvent[] = [];
  readonly #managers: Manager[] = [];
  readonly #agents: HostAgent[] = [];
  #numPids = 0;
  /** What an instance does by itself when it is launched; default: it joins and registers. */
  onLaunch: ((instance: ScriptedInstance) => Promise<void>) | undefined = undefined;
  /** Signals change nothing: the kernel has not ended the process yet. */
  ignoresSignals = false;

  async manager(
    options: Partial<ManagerOptions> = {},
    more: Partial<ManagerConfig> = {},
  ): Promise<Manager> {
    const manager = await Manager.listen({
      bus: this.bus,
      addresses: ["inproc:manager"],
      options: { ...managerOptions, ...options },
      launcher: null,
      clock: realClock,
      stopTimeoutMs: 10,
      rejoinWaitMs: 50,
      onEvent: (event) => this.events.push(event),
      ...more,
    });
    this.#managers.push(manager);
    return manager;
  }

  /** Starts an agent; does not wait until it has joined. */
  host(name: string, facts: Partial<AgentJoin> = {}, records = new MemoryRecords()): TestHost {
    const launcher = new ScriptedLauncher(this.bus, this.onLaunch);
    const agent = new HostAgent({
      bus: this.bus,
      clock: realClock,
      log: quiet,
      fence: new LeaderFence(`host ${name}`),
      facts: {
        host: name,
        pid: 1,
        machine: `machine of ${name}`,
        resources: { cudaDevices: 0, cores: 2, memoryBytes: 1e9 },
        slots: 1,
        initialInstances: 0,
        ...facts,
      },
      launcher: {
        launch: async (request) => {
          const instance = await launcher.launch(request) as ScriptedInstance;
          const pid = ++this.#numPids + 100;
          instance.settings = { pid };
          const stop = (signal: "SIGTERM" | "SIGKILL") => {
            if (!this.ignoresSignals) instance.stop(signal);
          };
          return { pid, exited: instance.exited, stop };
        },
      },
      records,
      startOf: (pid) => `start of ${pid}`,
      find: ({ instanceId }) => {
        const running = this.#launchers.flatMap(({ instances }) => instances)
          .findLast(({ id }) => id === instanceId);
        if (running === undefined) return null;
        let hasEnded = false;
        running.exited.then(() => hasEnded = true);
        return { hasEnded: () => hasEnded, stop: (signal) => running.stop(signal) };
      },
    });
    this.#launchers.push(launcher);
    this.#agents.push(agent);
    agent.moveTo("inproc:manager");
    return { agent, launched: launcher.instances, records };
  }
  readonly #launchers: ScriptedLauncher[] = [];

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#agents) await agent.close();
    for (const manager of this.#managers) await manager.stop();
    for (const { instances } of this.#launchers) {
      for (const instance of instances) await instance.exit({ code: 0, signal: null });
    }
  }
}

/** Waits until these instances serve, by their hosts. */
export async function untilServing(manager: Manager, hosts: readonly TestHost[], counts: number[]) {
  const serving = () => new Set(manager.instances().map(({ instanceId }) => instanceId));
  const countOf = ({ agent }: TestHost) =>
    agent.instanceIds.filter((instanceId) => serving().has(instanceId)).length;
  await until(() => hosts.every((host, i) => countOf(host) === counts[i])).catch(() => {
    assert.deepEqual(hosts.map(countOf), counts);
  });
}
