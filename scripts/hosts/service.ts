/** A service over three hosts: each has a manager, an API server and an instance. */
import { join } from "node:path";
import { openBus } from "../../src/bus/open_bus.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import type { InstanceList, InstanceRegistration } from "../../src/core/protocol/membership.ts";
import { clusterKey, makeKeyFile } from "../../src/roles/cluster_key.ts";
import { Program, signalIfThere } from "../../test/e2e/harness.ts";
import type { HostNetwork } from "./network.ts";

export const HOSTS = [1, 2, 3] as const;
export const ADMIN_TOKEN = "hosts-token";
const MANAGER_PORT = 9000;
const HTTP_PORT = 8000;
const METRICS_PORT = 8001;
/** An instance that is silent for so long is given up. */
export const INSTANCE_TIMEOUT_S = 5;
const ANSWER_MS = 3_000;
const POLL_MS = 50;
const START_LIMIT_MS = 120_000;

/**
 * Simulated GPUs: a step takes as long as on a GPU, and hardly any CPU. Two cores are too few for three
 * instances that compute. All else is what users run. A token depends on the request's seed and on its place.
 */
const engine = [
  ...["--device", "sim", "--model", "llama-7b", "--speedup", "4"],
  ...["--migration-backend", "rayrpc"],
];

/** Disposing of it ends all its processes. */
export class Service implements AsyncDisposable {
  readonly #programs: {
    readonly host: number;
    readonly role: string;
    readonly program: Program;
  }[] = [];
  readonly #directory = Deno.makeTempDirSync({ prefix: "llumnix-hosts-" });
  readonly #keyFile = join(this.#directory, "key");

  private constructor(
    private readonly network: HostNetwork,
    private readonly storeUrl: string,
  ) {
    makeKeyFile(this.#keyFile);
  }

  /**
   * Starts it, and waits until all instances serve at each API server.
   * @param first the host whose manager leads
   */
  static async start(network: HostNetwork, storeUrl: string, first: number): Promise<Service> {
    const service = new Service(network, storeUrl);
    try {
      await service.#start(first);
      return service;
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Where clients reach the API server of a host. */
  urlOf(host: number): string {
    return `http://${this.network.addressOf(host)}:${HTTP_PORT}`;
  }

  /** Epochs that were led so far, and by which hosts. */
  get epochs(): { readonly epoch: number; readonly host: number }[] {
    return HOSTS.flatMap((host) =>
      [...this.logOf(host, "manager").matchAll(/leading in epoch (\d+)/g)].map(([, epoch]) => ({
        epoch: Number(epoch),
        host,
      }))
    ).toSorted((a, b) => a.epoch - b.epoch);
  }

  /** The host whose manager leads now, by its own opinion. */
  get leader(): number {
    return this.epochs.at(-1)!.host;
  }

  logOf(host: number, role: string): string {
    return this.#programs.filter((one) => one.host === host && one.role === role)
      .map(({ program }) => program.stderr).join("");
  }

  /** Everything that was logged, for the reader of a failure. */
  get logs(): string {
    return this.#programs.map(({ host, role, program }) =>
      `== ${role} of host ${host}\n${program.stderr}`
    ).join("\n");
  }

  killManager(host: number): void {
    for (const one of this.#programs) {
      if (one.host === host && one.role === "manager") one.program.signal("SIGKILL");
    }
  }

  /** The host loses its power: what it sent last is under way, and nothing follows. */
  async loseHost(host: number): Promise<void> {
    await this.network.unplug(host);
    for (const pid of await this.network.pidsOf(host)) signalIfThere(pid, "SIGKILL");
  }

  /** The instances of a manager, as it tells API servers; null: it does not lead, or does not answer. */
  async listOf(host: number): Promise<readonly InstanceRegistration[] | null> {
    const list = Promise.withResolvers<InstanceList>();
    list.promise.catch(() => {});
    try {
      const manager = await this.#bus.connect(this.#managerAddress(host), {
        notifications: { instances: ({ data }) => list.resolve(data) },
      }, { timeoutMs: ANSWER_MS });
      try {
        await manager.call("subscribe", { data: null }, { timeoutMs: ANSWER_MS });
        return (await list.promise).instances;
      } finally {
        manager.close();
      }
    } catch {
      return null;
    }
  }

  async statusOf({ address }: InstanceRegistration): Promise<InstanceInfo> {
    const instance = await this.#bus.connect(address, {}, { timeoutMs: ANSWER_MS });
    try {
      return (await instance.call("status", { data: null }, { timeoutMs: ANSWER_MS })).data;
    } finally {
      instance.close();
    }
  }

  /** Tokens computed by the instances that this service has started on these hosts. */
  async generatedTokens(hosts: readonly number[]): Promise<number> {
    let sum = 0;
    for (const host of hosts) {
      const url = `http://${this.network.addressOf(host)}:${METRICS_PORT}/metrics`;
      const text = await (await fetch(url)).text();
      const line = /^llumnix:instance_generation_tokens_total\{.*\} (\d+)$/m.exec(text);
      sum += Number(line?.[1] ?? 0);
    }
    return sum;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const host of HOSTS) {
      const pids = await this.network.pidsOf(host).catch(() => []);
      const own = new Set(
        this.#programs.flatMap(({ program }) => program.processes().map(({ pid }) => pid)),
      );
      for (const pid of pids) if (own.has(pid)) signalIfThere(pid, "SIGKILL");
    }
    for (const { program } of this.#programs) await program[Symbol.asyncDispose]().catch(() => {});
    await Deno.remove(this.#directory, { recursive: true });
  }

  get #bus() {
    return openBus({ clusterKey: clusterKey({ clusterKeyFile: this.#keyFile }) });
  }

  #managerAddress(host: number): string {
    return `tcp:${this.network.addressOf(host)}:${MANAGER_PORT}`;
  }

  #run(host: number, role: string, ...args: string[]): Program {
    const runtime = join(this.#directory, `h${host}`);
    Deno.mkdirSync(runtime, { recursive: true, mode: 0o700 });
    const common = ["--cluster", this.storeUrl, "--cluster-key-file", this.#keyFile, ...engine];
    const program = new Program([role, ...common, ...args], {
      launcher: this.network.launcherOf(host),
      env: { XDG_RUNTIME_DIR: runtime, LLUMNIX_ADMIN_TOKEN: ADMIN_TOKEN },
    });
    this.#programs.push({ host, role, program });
    return program;
  }

  async #start(first: number): Promise<void> {
    for (const host of [first, ...HOSTS.filter((other) => other !== first)]) {
      const manager = this.#run(
        ...[host, "manager", "--manager-address", this.#managerAddress(host)] as const,
        ...["--disable-init-instance-by-manager", "--initial-instances", `${HOSTS.length}`],
        ...["--instance-timeout", `${INSTANCE_TIMEOUT_S}`],
      );
      await manager.waitForLog(host === first ? /leading in epoch/ : /following .* in epoch/);
    }
    for (const host of HOSTS) {
      const metrics = ["--metrics-host", "0.0.0.0", "--metrics-port", `${METRICS_PORT}`];
      this.#run(host, "instance", "--instance-id", `host-${host}`, ...metrics);
      this.#run(host, "api-server", "--host", "0.0.0.0", "--port", `${HTTP_PORT}`);
    }
    const untilMs = performance.now() + START_LIMIT_MS;
    for (const host of HOSTS) {
      while (!await this.#isReady(host)) {
        if (performance.now() > untilMs) {
          throw new Error(`the service did not start:\n${this.logs}`);
        }
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    }
  }

  async #isReady(host: number): Promise<boolean> {
    try {
      return await (await fetch(`${this.urlOf(host)}/is_ready`)).json();
    } catch {
      return false;
    }
  }
}
