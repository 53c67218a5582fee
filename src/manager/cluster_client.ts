import type { Address, Bus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import type { Cluster, OutputSink } from "../core/cluster.ts";
import { LlumnixError, RequestError, toErrorRecord, UnavailableError } from "../core/errors.ts";
import type {
  AdminCall,
  DispatchRequest,
  Finish,
  GenerateRequest,
  InstanceId,
  InstanceList,
  InstanceRegistration,
  OutputBatch,
  RequestId,
  RequestOutput,
  ServedSettings,
} from "../core/messages.ts";
import { ClientRequest } from "./client_request.ts";
import { homelessRequests } from "./homeless_requests.ts";
import { InstanceLink } from "./instance_link.ts";
import { ManagerLink } from "./manager_link.ts";
import { SilenceAudit } from "./silence_audit.ts";
import { Suspects } from "./suspects.ts";

/** Pause before an instance is sought again, unless the list of instances changes before. */
const PLACE_RETRY_MS = 200;
/** The same while there is no instance: all that can help is one that comes. */
const NOBODY_RETRY_MS = 5_000;
/** Pause before a connection to an instance that serves is made again. */
const RECONNECT_MS = 500;
/** Longer than the manager takes over a migration. */
const ADMIN_TIMEOUT_MS = 40_000;
/** How often a request goes on elsewhere. */
const MAX_RESUMPTIONS = 20;

export interface ClusterClientConfig {
  readonly bus: Bus;
  readonly managerAddress: Address;
  /** Name of this API server; unique in the cluster. */
  readonly frontendId: string;
  readonly clock: Clock;
  /** What it is made for; absent: whatever the instances serve. */
  readonly settings?: ServedSettings;
  /** The connection to the manager ended; until it is back, requests are dispatched from here. */
  readonly onManagerLost?: (reason: string) => void;
  /** The manager that came instead serves something else; requests go to instances known before. */
  readonly onMisfit?: (reason: string) => void;
  /** A request goes on after its instance lost it. */
  readonly onResume?: (requestId: RequestId, reason: string) => void;
}

/** Where a request goes, and after how many steps it is to leave. */
interface Place {
  readonly link: InstanceLink;
  readonly expectedSteps?: number;
}

/**
 * An API server's view of the cluster: the manager decides which instance takes a request, requests
 * and tokens then go between the API server and the instance directly.
 *
 * A request is owned by the sender of the highest epoch. Whoever else sends output of it is told to
 * drop it; its tokens, which are the same, are delivered all the same. When the owner has lost a
 * request, it goes on elsewhere behind the tokens that were delivered.
 */
export class ClusterClient implements Cluster {
  readonly frontendId: string;
  readonly #config: ClusterClientConfig;
  /** Those that have not ended. */
  readonly #requests = new Map<RequestId, ClientRequest>();
  /** Those whose sink was not called yet: they may have ended. */
  readonly #unopened = new Map<RequestId, ClientRequest>();
  /** Connections that are there or being made. */
  readonly #links = new Map<InstanceId, InstanceLink>();
  readonly #audit: SilenceAudit;
  readonly #suspects: Suspects;
  #manager!: ManagerLink;
  #list: InstanceList = { version: 0, instances: [], expectedInstances: 0 };
  #listChanged = Promise.withResolvers<void>();
  /** Instances that somebody waits for. */
  readonly #awaited = new Map<InstanceId, PromiseWithResolvers<void>>();
  #cancelReconnect: (() => void) | null = null;
  #isClosed = false;

  private constructor(config: ClusterClientConfig) {
    this.#config = config;
    this.frontendId = config.frontendId;
    const { frontendId } = config;
    this.#suspects = new Suspects(config.clock, () => {
      this.#manager.notify("suspecting", { frontendId });
    });
    this.#audit = new SilenceAudit({
      clock: config.clock,
      links: () => this.#links.values(),
      onMissing: (request, reason) => this.#recover(request, reason),
    });
  }

  /**
   * @throws {UnavailableError} the manager cannot be reached
   * @throws {UsageError} it serves something else
   */
  static async connect(config: ClusterClientConfig): Promise<ClusterClient> {
    const client = new ClusterClient(config);
    client.#manager = await ManagerLink.connect({
      ...config,
      address: config.managerAddress,
      onList: (list, isFirst) => client.#updateList(list, isFirst),
      onQuery: (query) => homelessRequests(client.#requests.values(), query, config.clock.nowMs()),
      onLost: config.onManagerLost,
      onMisfit: (reason) => {
        config.onMisfit?.(reason);
        client.#wake();
      },
    });
    return client;
  }

  instances(): readonly InstanceRegistration[] {
    return this.#list.instances;
  }

  /** Requests that have not ended. */
  get numRequests(): number {
    return this.#requests.size;
  }

  isReady(): boolean {
    const { instances, expectedInstances, takesRequests } = this.#list;
    if (this.#manager.misfit !== null) return !this.#isHopeless;
    return instances.length > 0 && instances.length >= expectedInstances && takesRequests !== false;
  }

  /** Resolves when an instance serves or has served, however briefly, after this was called. */
  async untilServing(instanceId: InstanceId): Promise<void> {
    if (this.#list.instances.some((one) => one.instanceId === instanceId)) return;
    const awaited = this.#awaited.get(instanceId) ?? Promise.withResolvers<void>();
    this.#awaited.set(instanceId, awaited);
    await awaited.promise;
  }

  async submit(request: GenerateRequest, sink: OutputSink): Promise<void> {
    const { requestId } = request;
    if (this.#isClosed) throw new UnavailableError("the API server is closing");
    if (this.#requests.has(requestId) || this.#unopened.has(requestId)) {
      throw new RequestError(`a request with the id "${requestId}" is running`);
    }
    const entry = new ClientRequest(request, sink);
    this.#requests.set(requestId, entry);
    this.#unopened.set(requestId, entry);
    try {
      await this.#place(entry);
    } catch (error) {
      this.#unopened.delete(requestId);
      this.#forget(entry);
      throw error;
    }
    // In a later turn, so that the caller knows that the request was accepted before it has output.
    this.#config.clock.soon(() => {
      this.#unopened.delete(requestId);
      entry.open();
    });
  }

  /** For whoever operates the service. */
  readonly admin: AdminCall = async (method, ask) =>
    await this.#manager.call(method, ask, ADMIN_TIMEOUT_MS) as never;

  abort(requestId: RequestId): void {
    const entry = this.#requests.get(requestId) ?? this.#unopened.get(requestId);
    if (!entry) return;
    entry.abort();
    entry.link?.abort(requestId);
    this.#forget(entry);
  }

  /** Closes all connections; what still runs ends with an error. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#audit.close();
    this.#suspects.close();
    this.#listChanged.resolve(); // whoever waits for an instance waits in vain
    this.#cancelReconnect?.();
    const closing = [this.#manager.close()];
    const reason = "the API server is closing";
    for (const entry of [...this.#requests.values()]) this.#fail(entry, reason);
    for (const link of [...this.#links.values()]) closing.push(link.close(reason));
    await Promise.all(closing);
  }

  /**
   * Gives a request to an instance; to another one if the first is lost before it answers. While none
   * can take it, it waits.
   * @throws {LlumnixError} one refused it, or this API server closes
   */
  async #place(entry: ClientRequest): Promise<void> {
    entry.isBeingPlaced = true;
    for (;;) {
      const listChanged = this.#listChanged.promise;
      const error = await this.#tryPlace(entry);
      if (error === null) break;
      if (this.#isClosed || this.#isHopeless || !mayPass(error, entry)) throw error;
      if (entry.isLostOnArrival) await this.#waitForTrial(entry);
      const isAnyThere = this.#list.instances.length > 0;
      const pauseMs = isAnyThere ? PLACE_RETRY_MS : NOBODY_RETRY_MS;
      await settledOrDelayed(listChanged, this.#config.clock, pauseMs);
    }
    entry.isBeingPlaced = false;
    this.#audit.start();
    // It may have been lost already, by the instance that took it or by one that it moved on to.
    if (entry.lostReason !== null) this.#recover(entry, entry.lostReason, true);
  }

  /**
   * Its instance was lost before it could say that it has it.
   * @throws {UnavailableError} it may be the cause
   */
  async #waitForTrial(entry: ClientRequest): Promise<void> {
    entry.isLostOnArrival = false;
    const objection = this.#suspects.noteLoss(entry);
    if (objection !== null) throw new UnavailableError(objection);
    await new Promise<void>((resolve) => this.#suspects.release(entry, resolve));
  }

  /** Returns null when nothing is left to do: an instance has it, or it has ended. */
  async #tryPlace(entry: ClientRequest): Promise<unknown> {
    if (entry.hasEnded) return null;
    const { requestId, promptTokens, priority } = entry;
    let link: InstanceLink | null = null;
    try {
      const triedBy = entry.isTried ? this.frontendId : undefined;
      const place = await this.#dispatch({ requestId, promptTokens, priority, triedBy });
      link = place.link;
      if (entry.hasEnded || entry.link !== null) return null; // an instance had it all the time
      entry.givenMs = this.#config.clock.nowMs();
      await link.generate(entry.giveTo(link, place.expectedSteps));
    } catch (error) {
      if (!entry.hasEnded && entry.link === link) {
        link?.abort(requestId, entry.epoch); // it may have been queued although no answer came
        entry.own(null, entry.epoch);
        entry.isLostOnArrival = link?.isGreeted === true && link.isLost && !link.wasStopped;
        return error;
      }
    }
    if (entry.hasEnded) link?.abort(requestId, entry.epoch);
    return null;
  }

  async #dispatch(request: DispatchRequest): Promise<Place> {
    const reply = await this.#manager.dispatch(request);
    if (reply === null) return { link: this.#leastUsedLink() };
    return { link: this.#linkTo(reply.instanceId), expectedSteps: reply.expectedSteps };
  }

  /** The choice without a manager, and so without migration: what is given to an instance stays. */
  #leastUsedLink(): InstanceLink {
    const connected = this.#connectedLinks();
    const prefill = connected.filter((link) => link.registration.instanceType !== "decode");
    let least: InstanceLink | null = null;
    for (const link of prefill.length > 0 ? prefill : connected) {
      const difference = least === null ? -1 : link.requests.size - least.requests.size;
      const isFirst = difference === 0 && link.instanceId < least!.instanceId;
      if (difference < 0 || isFirst) least = link;
    }
    if (least) return least;
    const { misfit } = this.#manager;
    throw new UnavailableError(misfit ?? "the manager is gone, and no instance is known here");
  }

  /** Waiting does not help. */
  get #isHopeless(): boolean {
    return this.#manager.misfit !== null && this.#connectedLinks().length === 0;
  }

  #connectedLinks(): InstanceLink[] {
    return [...this.#links.values()].filter((link) => link.isConnected);
  }

  #linkTo(instanceId: InstanceId): InstanceLink {
    const link = this.#links.get(instanceId) ?? this.#connectTo(instanceId);
    if (link && !link.isLost) return link;
    throw new UnavailableError(`${instanceId} is not known here yet`);
  }

  #connectTo(instanceId: InstanceId): InstanceLink | null {
    const registration = this.#list.instances.find((other) => other.instanceId === instanceId);
    if (!registration) return null;
    const { bus, clock, frontendId } = this.#config;
    const link = new InstanceLink({
      bus,
      clock,
      registration,
      frontendId,
      onOutputs: this.#deliver,
      onLost: (link, reason) => this.#loseLink(link, reason),
    });
    this.#links.set(instanceId, link);
    return link;
  }

  /** Connects to what is new, and leaves what the manager knew and does not know any more. */
  #updateList(list: InstanceList, isFirst: boolean): void {
    const former = isFirst ? [] : this.#list.instances;
    this.#list = list;
    for (const { instanceId } of list.instances) {
      this.#awaited.get(instanceId)?.resolve();
      this.#awaited.delete(instanceId);
    }
    const addresses = new Map(list.instances.map((one) => [one.instanceId, one.address]));
    for (const { instanceId } of former) {
      if (addresses.has(instanceId)) continue;
      const link = this.#links.get(instanceId);
      if (!link) continue;
      link.wasStopped = list.stopped?.includes(instanceId) === true;
      link.close(link.wasStopped ? "it was stopped" : "the manager has given it up");
    }
    for (const [instanceId, address] of addresses) {
      const link = this.#links.get(instanceId);
      if (link && link.registration.address !== address) link.close("it has moved");
    }
    this.#connectToAll();
    this.#wake();
  }

  /** Whoever waits for an instance looks again. */
  #wake(): void {
    this.#listChanged.resolve();
    this.#listChanged = Promise.withResolvers();
  }

  /** Instances find an API server connected when a request that moves brings them its output. */
  #connectToAll(): void {
    if (this.#isClosed) return;
    for (const { instanceId } of this.#list.instances) {
      if (!this.#links.has(instanceId)) this.#connectTo(instanceId);
    }
  }

  #loseLink(link: InstanceLink, reason: string): void {
    const { instanceId } = link;
    if (this.#links.get(instanceId) === link) this.#links.delete(instanceId);
    if (this.#isClosed) return;
    this.#recoverAll(link, reason);
    // What it had sent last is missing elsewhere, or it had taken over what is thought elsewhere.
    this.#audit.hurry();
    this.#cancelReconnect ??= this.#config.clock.after(RECONNECT_MS, () => {
      this.#cancelReconnect = null;
      this.#connectToAll();
    });
  }

  /** What a lost instance had goes on elsewhere. */
  #recoverAll(link: InstanceLink, reason: string): void {
    const why = `${link.instanceId} was lost while it ran the request (${reason})`;
    for (const entry of [...link.requests]) this.#recover(entry, why, !link.wasStopped);
  }

  /** The path of every token. */
  readonly #deliver = (link: InstanceLink, { outputs }: OutputBatch): void => {
    const nowMs = this.#config.clock.nowMs();
    for (const output of outputs) {
      const entry = this.#requests.get(output.requestId);
      if (entry) this.#accept(entry, link, stamped(output, nowMs), nowMs);
      else if (!output.finish) link.refuse(output);
    }
    // One of them may have ended the link, and others behind it have come into its hands.
    if (link.isLost && link.requests.size > 0) this.#recoverAll(link, "its engine failed");
  };

  #accept(entry: ClientRequest, link: InstanceLink, output: RequestOutput, nowMs: number): void {
    const epoch = output.epoch ?? 0;
    if (epoch > entry.epoch) entry.own(link, epoch);
    const isOwner = entry.link === link && epoch === entry.epoch;
    const { finish } = output;
    if (output.tokenIds.length > 0) {
      link.progressedMs = nowMs;
      if (isOwner) entry.noteProgress(nowMs);
    }
    if (!isOwner && !finish) link.refuse(output);
    if (finish && isLoss(finish)) {
      entry.accept({ ...output, finish: undefined });
      if (!isOwner) return;
      const why = finish.error?.message ?? `${link.instanceId} dropped it`;
      if (finish.error?.kind === "internal") link.close(why); // with all that it has
      else this.#recover(entry, why);
      return;
    }
    if (finish?.reason === "error" && !isOwner) return;
    entry.accept(output);
    if (entry.fruitlessLosses > 0) this.#suspects.noteOutput(entry);
    if (!entry.hasEnded) return;
    if (!isOwner || !finish) entry.link?.abort(entry.requestId, entry.epoch);
    this.#forget(entry);
  }

  /**
   * The owner does not have the request any more: another instance goes on with it.
   * @param mayBeCause the instance was lost, maybe because of the request
   */
  #recover(entry: ClientRequest, reason: string, mayBeCause = false): void {
    if (entry.hasEnded || this.#isClosed) return;
    if (entry.isBeingPlaced) {
      entry.lostReason = reason;
      return;
    }
    entry.link?.abort(entry.requestId, entry.epoch);
    entry.own(null, entry.epoch);
    if (entry.isComplete) return this.#end(entry, () => entry.finish({ reason: "length" }));
    const objection = mayBeCause ? this.#suspects.noteLoss(entry) : null;
    if (objection !== null) return this.#fail(entry, `${reason}; ${objection}`);
    if (entry.numResumptions === MAX_RESUMPTIONS) {
      return this.#fail(entry, `${reason}; it had been resumed ${MAX_RESUMPTIONS} times already`);
    }
    entry.numResumptions++;
    this.#config.onResume?.(entry.requestId, reason);
    this.#suspects.release(entry, () => this.#resume(entry, reason));
  }

  #resume(entry: ClientRequest, reason: string): void {
    this.#place(entry).catch((error) => {
      const record = toErrorRecord(error);
      const message = `${reason}, and it could not be resumed: ${record.message}`;
      this.#end(entry, () => entry.fail({ ...record, message }));
    });
  }

  #fail(entry: ClientRequest, message: string): void {
    this.#end(entry, () => entry.fail({ kind: "unavailable", message }));
  }

  #end(entry: ClientRequest, finish: () => void): void {
    if (entry.hasEnded) return;
    this.#forget(entry);
    finish();
  }

  #forget(entry: ClientRequest): void {
    entry.own(null, entry.epoch);
    if (this.#requests.get(entry.requestId) === entry) this.#requests.delete(entry.requestId);
    this.#suspects.forget(entry);
  }
}

/** With the time at which it came, where that is asked for. */
function stamped(output: RequestOutput, receivedMs: number): RequestOutput {
  return output.timing ? { ...output, timing: { ...output.timing, receivedMs } } : output;
}

/** Whether a finish says that the instance stops, is broken, or dropped what was not aborted here. */
function isLoss({ reason, error }: Finish): boolean {
  if (reason === "abort") return true;
  return reason === "error" && (error?.kind === "unavailable" || error?.kind === "internal");
}

/** Whether it is worth another attempt; one that runs already is not given up for full queues. */
function mayPass(error: unknown, entry: ClientRequest): boolean {
  if (!(error instanceof LlumnixError)) return false;
  return error.kind === "unavailable" || (error.kind === "overloaded" && entry.numResumptions > 0);
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
