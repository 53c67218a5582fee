import { setImmediate } from "node:timers";
import type { Address, Bus, Peer } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import type { Cluster, OutputSink } from "../core/cluster.ts";
import { LlumnixError, RequestError, UnavailableError } from "../core/errors.ts";
import type {
  DispatchReply,
  DispatchRequest,
  GenerateRequest,
  InstanceId,
  InstanceList,
  InstanceRegistration,
  OutputBatch,
  RequestId,
} from "../core/messages.ts";
import { ClientRequest } from "./client_request.ts";
import { InstanceLink } from "./instance_link.ts";

/** How long a request waits for an instance that can take it. */
const DEFAULT_INSTANCE_WAIT_MS = 10_000;
/** Pause before the manager is asked again, unless the list of instances changes before. */
const DISPATCH_RETRY_MS = 200;

export interface ClusterClientConfig {
  readonly bus: Bus;
  readonly managerAddress: Address;
  /** Name of this API server; unique in the cluster. */
  readonly frontendId: string;
  readonly clock: Clock;
  readonly instanceWaitMs?: number;
  /** The connection to the manager ended; no request can be dispatched any more. */
  readonly onManagerLost?: (reason: string) => void;
}

/**
 * An API server's view of the cluster: the manager decides which instance takes a request, requests
 * and tokens then go between the API server and the instance directly.
 */
export class ClusterClient implements Cluster {
  readonly frontendId: string;
  readonly #config: ClusterClientConfig;
  readonly #requests = new Map<RequestId, ClientRequest>();
  readonly #links = new Map<InstanceId, InstanceLink>();
  #manager!: Peer;
  #list: InstanceList = { instances: [], expectedInstances: 0 };
  #listChanged = Promise.withResolvers<void>();
  #isClosed = false;

  private constructor(config: ClusterClientConfig) {
    this.#config = config;
    this.frontendId = config.frontendId;
  }

  /** @throws {UnavailableError} the manager cannot be reached */
  static async connect(config: ClusterClientConfig): Promise<ClusterClient> {
    const client = new ClusterClient(config);
    client.#manager = await config.bus.connect(config.managerAddress, {
      notifications: { instances: ({ data }) => client.#updateList(data as InstanceList) },
      onClose: (_, reason) => {
        if (!client.#isClosed) config.onManagerLost?.(reason);
      },
    });
    await client.#manager.call("subscribe", { data: null }); // the list arrives before the answer
    return client;
  }

  instances(): readonly InstanceRegistration[] {
    return this.#list.instances;
  }

  isReady(): boolean {
    const { instances, expectedInstances } = this.#list;
    return instances.length > 0 && instances.length >= expectedInstances;
  }

  async submit(request: GenerateRequest, sink: OutputSink): Promise<void> {
    const { requestId } = request;
    if (this.#requests.has(requestId)) {
      throw new RequestError(`a request with the id "${requestId}" is running`);
    }
    const entry = new ClientRequest(request, sink, this.#forget);
    this.#requests.set(requestId, entry);
    try {
      await this.#place(entry, request);
    } catch (error) {
      this.#forget(entry);
      throw error;
    }
    // In a later turn, so that the caller knows that the request was accepted before it has output.
    setImmediate(() => entry.open());
  }

  abort(requestId: RequestId): void {
    const entry = this.#requests.get(requestId);
    if (!entry) return;
    entry.abort();
    entry.link?.abort(requestId);
    this.#forget(entry);
  }

  /** Closes all connections; what still runs ends with an error. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#manager.close();
    await Promise.all([...this.#links.values()].map((link) => link.close()));
  }

  /** Gives a request to an instance; to another one if the first is lost before it answers. */
  async #place(entry: ClientRequest, request: GenerateRequest): Promise<void> {
    const { clock, instanceWaitMs = DEFAULT_INSTANCE_WAIT_MS } = this.#config;
    const deadlineMs = clock.nowMs() + instanceWaitMs;
    for (;;) {
      const listChanged = this.#listChanged.promise;
      let link: InstanceLink | null = null;
      try {
        link = await this.#dispatch(request);
        if (entry.isAborted) return;
        entry.link = link;
        return await link.generate(entry, request);
      } catch (error) {
        if (entry.isAborted) return;
        const remainingMs = deadlineMs - clock.nowMs();
        const mayChange = this.#manager.isOpen && (link === null || link.isLost);
        if (!isUnavailable(error) || !mayChange || remainingMs <= 0) throw error;
        await settledOrDelayed(listChanged, clock, Math.min(remainingMs, DISPATCH_RETRY_MS));
      }
    }
  }

  async #dispatch({ requestId, promptTokenIds }: GenerateRequest): Promise<InstanceLink> {
    const request: DispatchRequest = { requestId, promptTokens: promptTokenIds.length };
    const { data } = await this.#manager.call("dispatch", { data: request });
    return this.#linkTo((data as DispatchReply).instanceId);
  }

  #linkTo(instanceId: InstanceId): InstanceLink {
    const existing = this.#links.get(instanceId);
    if (existing && !existing.isLost) return existing;
    const registration = this.#list.instances.find((other) => other.instanceId === instanceId);
    if (!registration) throw new UnavailableError(`${instanceId} is not known here yet`);
    const { bus, frontendId } = this.#config;
    const onOutputs = this.#deliver;
    const link = new InstanceLink({ bus, registration, frontendId, onOutputs });
    this.#links.set(instanceId, link);
    return link;
  }

  /** Connects to what is new and leaves what is gone, which ends its requests. */
  #updateList(list: InstanceList): void {
    this.#list = list;
    const serving = new Set(list.instances.map(({ instanceId }) => instanceId));
    for (const [instanceId, link] of this.#links) {
      if (serving.has(instanceId)) continue;
      this.#links.delete(instanceId);
      link.close();
    }
    for (const instanceId of serving) this.#linkTo(instanceId);
    this.#listChanged.resolve();
    this.#listChanged = Promise.withResolvers();
  }

  /** The path of every token. */
  readonly #deliver = ({ outputs }: OutputBatch): void => {
    for (const output of outputs) this.#requests.get(output.requestId)?.accept(output);
  };

  readonly #forget = (entry: ClientRequest): void => {
    entry.link?.forget(entry);
    if (this.#requests.get(entry.requestId) === entry) this.#requests.delete(entry.requestId);
  };
}

function isUnavailable(error: unknown): boolean {
  return error instanceof LlumnixError && error.kind === "unavailable";
}

async function settledOrDelayed(
  promise: Promise<void>,
  clock: Clock,
  delayMs: number,
): Promise<void> {
  const delay = Promise.withResolvers<void>();
  const cancel = clock.after(delayMs, delay.resolve);
  await Promise.race([promise, delay.promise]);
  cancel();
}
