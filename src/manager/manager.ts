import type { Address, Bus, Listener, Peer, Service } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { type ErrorRecord, LlumnixError, UnavailableError } from "../core/errors.ts";
import type {
  DispatchReply,
  DispatchRequest,
  InstanceId,
  InstanceInfo,
  InstanceList,
  InstanceProgress,
  InstanceRegistration,
  JoinReply,
  JoinRequest,
  RequestId,
} from "../core/messages.ts";
import type { ManagerOptions } from "../core/options.ts";
import { Random } from "../core/random.ts";
import { Dispatcher } from "./dispatch/dispatcher.ts";
import type { InstanceLauncher } from "./launcher.ts";
import { ManagedInstance } from "./managed_instance.ts";

/** Time that instances get to stop before they are killed. */
const DEFAULT_STOP_TIMEOUT_MS = 5_000;

export interface ManagerConfig {
  readonly bus: Bus;
  /** Where the manager listens; instances are told the first. */
  readonly addresses: readonly [Address, ...Address[]];
  readonly options: ManagerOptions;
  readonly launcher: InstanceLauncher;
  readonly clock: Clock;
  readonly onEvent?: (event: ManagerEvent) => void;
  readonly stopTimeoutMs?: number;
  /** Of what is decided by lot. */
  readonly seed?: number;
}

/** What happens, for people: the command line prints it. */
export type ManagerEvent =
  | { readonly type: "launched"; readonly instanceId: InstanceId; readonly pid: number }
  | { readonly type: "progress"; readonly progress: InstanceProgress }
  | { readonly type: "registered"; readonly registration: InstanceRegistration }
  | { readonly type: "lost"; readonly instanceId: InstanceId; readonly reason: string }
  | {
    readonly type: "dispatched";
    readonly requestId: RequestId;
    readonly instanceId: InstanceId;
  };

/**
 * Starts instances, knows which of them serve, and decides which takes a request. Tokens do not pass
 * through it.
 */
export class Manager {
  readonly #config: ManagerConfig;
  readonly #dispatcher: Dispatcher;
  readonly #instances = new Map<InstanceId, ManagedInstance>();
  readonly #instanceOfPeer = new Map<Peer, ManagedInstance>();
  readonly #subscribers = new Set<Peer>();
  /** Those that serve, sorted by id. */
  #serving: ManagedInstance[] = [];
  #listeners: Listener[] = [];
  #stopping: Promise<void> | null = null;

  private constructor(config: ManagerConfig) {
    this.#config = config;
    this.#dispatcher = new Dispatcher(config.options, new Random(config.seed ?? 0));
  }

  /**
   * Starts a manager without instances.
   * @throws {UnavailableError} an address cannot be bound
   */
  static async listen(config: ManagerConfig): Promise<Manager> {
    const manager = new Manager(config);
    try {
      for (const address of config.addresses) {
        manager.#listeners.push(await config.bus.listen(address, manager.#service()));
      }
    } catch (error) {
      await manager.stop();
      throw error;
    }
    return manager;
  }

  /**
   * Starts the initial instances and waits until all of them serve. After an error, `stop` ends
   * those that run.
   * @throws {LlumnixError} an instance ended before it served; its own error when it sent one
   */
  async startInstances(): Promise<void> {
    const count = this.#config.options.initialInstances;
    const ids = Array.from({ length: count }, (_, i) => `instance-${i}`);
    await Promise.all(ids.map((id) => this.#startInstance(id)));
  }

  /** Instances that serve, sorted by id. */
  instances(): InstanceRegistration[] {
    return this.#serving.map((instance) => instance.registration!);
  }

  /** Last reports of the instances that serve. */
  infos(): InstanceInfo[] {
    return this.#serving.flatMap(({ info }) => info ?? []);
  }

  /** Instances that serve or are on the way there. */
  get numInstances(): number {
    return this.#instances.size;
  }

  /** Ends the instances' processes at once; {@linkcode stop} then has nothing to wait for. */
  kill(): void {
    for (const { launched } of this.#instances.values()) launched?.stop("SIGKILL");
  }

  /**
   * Asks the instances to stop, waits, kills those that do not within the time limit, and closes
   * all connections. Idempotent.
   */
  stop(): Promise<void> {
    return this.#stopping ??= this.#stop();
  }

  async #startInstance(instanceId: InstanceId): Promise<void> {
    const instance = new ManagedInstance(instanceId);
    this.#instances.set(instanceId, instance);
    const managerAddress = this.#listeners[0].address;
    instance.launching = this.#config.launcher.launch({ instanceId, managerAddress });
    const launched = await instance.launching;
    instance.launched = launched;
    this.#emit({ type: "launched", instanceId, pid: launched.pid });
    launched.exited.then(() => this.#lose(instance));
    await instance.ready;
  }

  #service(): Service {
    return {
      calls: {
        join: ({ data }, peer) => ({ data: this.#join(data as JoinRequest, peer) }),
        register: ({ data }, peer) => {
          this.#register(data as InstanceRegistration, peer);
          return { data: null };
        },
        subscribe: (_, peer) => {
          this.#subscribers.add(peer);
          peer.notify("instances", { data: this.#instanceList() });
          return { data: null };
        },
        ping: () => ({ data: null }),
        dispatch: ({ data }) => ({ data: this.#dispatch(data as DispatchRequest) }),
      },
      notifications: {
        progress: ({ data }) => {
          this.#emit({ type: "progress", progress: data as InstanceProgress });
        },
        info: ({ data }, peer) => {
          this.#takeInfo(data as InstanceInfo, peer);
        },
        failed: ({ data }, peer) => {
          this.#instanceOf(peer).failure = data as ErrorRecord;
        },
      },
      onClose: (peer) => {
        this.#subscribers.delete(peer);
        const instance = this.#instanceOfPeer.get(peer);
        this.#instanceOfPeer.delete(peer);
        instance?.noteDisconnected();
        if (instance) this.#lose(instance);
      },
    };
  }

  #join({ instanceId }: JoinRequest, peer: Peer): JoinReply {
    const instance = this.#instances.get(instanceId);
    if (!instance || instance.peer || this.#stopping) {
      throw new UnavailableError(`the manager does not expect an instance "${instanceId}"`);
    }
    instance.peer = peer;
    this.#instanceOfPeer.set(peer, instance);
    return { infoIntervalMs: this.#config.options.pollingInterval * 1000 / 2 };
  }

  #register(registration: InstanceRegistration, peer: Peer): void {
    const instance = this.#instanceOf(peer);
    instance.register(registration);
    this.#emit({ type: "registered", registration });
    this.#updateServing();
  }

  #takeInfo(info: InstanceInfo, peer: Peer): void {
    this.#instanceOf(peer).info = info;
    this.#dispatcher.report(info);
  }

  #dispatch(request: DispatchRequest): DispatchReply {
    const instanceId = this.#dispatcher.dispatch(request, this.#config.clock.nowMs());
    if (instanceId === null) throw new UnavailableError("no instance is serving");
    const { requestId } = request;
    if (!this.#config.options.disableLogRequestsManager) {
      this.#emit({ type: "dispatched", requestId, instanceId });
    }
    return { instanceId };
  }

  /** Its process ended or its connection closed, in whichever order the two are noticed. */
  async #lose(instance: ManagedInstance): Promise<void> {
    if (instance.isLost) return;
    instance.isLost = true;
    this.#updateServing();
    const reason = await instance.describeEnd(this.#config.clock);
    instance.failStart(reason);
    this.#instances.delete(instance.instanceId);
    if (this.#stopping) return;
    this.#emit({ type: "lost", instanceId: instance.instanceId, reason });
  }

  #updateServing(): void {
    const serving = [...this.#instances.values()].filter((instance) => instance.isServing);
    this.#dispatcher.setInstances(serving.map(({ registration }) => ({
      registration: registration!,
      isDraining: false,
    })));
    this.#serving = serving.sort((a, b) => a.instanceId < b.instanceId ? -1 : 1);
    const list = this.#instanceList();
    for (const peer of this.#subscribers) peer.notify("instances", { data: list });
  }

  #instanceList(): InstanceList {
    return {
      instances: this.instances(),
      expectedInstances: this.#config.options.initialInstances,
    };
  }

  #instanceOf(peer: Peer): ManagedInstance {
    const instance = this.#instanceOfPeer.get(peer);
    if (!instance) throw new LlumnixError("internal", `${peer.remote} has not joined`);
    return instance;
  }

  async #stop(): Promise<void> {
    const running = [...this.#instances.values()];
    await Promise.allSettled(running.map(({ launching }) => launching));
    for (const instance of running) instance.askToStop();
    const { clock, stopTimeoutMs = DEFAULT_STOP_TIMEOUT_MS } = this.#config;
    const cancel = clock.after(stopTimeoutMs, () => {
      for (const { launched } of running) launched?.stop("SIGKILL");
    });
    await Promise.all(running.map(({ launched }) => launched?.exited));
    cancel();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    for (const instance of running) instance.noteDisconnected();
  }

  #emit(event: ManagerEvent): void {
    this.#config.onEvent?.(event);
  }
}
