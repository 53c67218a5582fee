import type { Address, Bus } from "../bus/bus.ts";
import { type Clock, sleep } from "../core/clock.ts";
import type { Cluster, ClusterMonitor, OutputSink, SubmittedRequest } from "../core/cluster.ts";
import { LlumnixError, RequestError, toErrorRecord, UnavailableError } from "../core/errors.ts";
import type { LeaderFence } from "../core/leader_fence.ts";
import type { AdminCall } from "../core/protocol/calls.ts";
import type { DispatchRequest } from "../core/protocol/dispatch.ts";
import type {
  Finish,
  HeldRequest,
  InstanceId,
  OutputBatch,
  RequestId,
  RequestOutput,
} from "../core/protocol/generate.ts";
import type { InstanceRegistration, ServedSettings } from "../core/protocol/membership.ts";
import { ClientRequest } from "./client_request.ts";
import type { InstanceLink } from "./instance_link.ts";
import { InstanceLinks } from "./instance_links.ts";
import { LostRequestAudit } from "./lost_request_audit.ts";
import { ManagerMonitor } from "./manager_monitor.ts";
import { ManagerLink } from "./manager_link.ts";
import { PoisonDetector } from "./poison_detector.ts";
import { unplacedRequests } from "./unplaced_requests.ts";

/** Pause before a request without an instance tries again, unless the list of instances changes. */
const PLACE_RETRY_MS = 200;
/** The same while the list is empty: nothing but a new instance helps. */
const EMPTY_LIST_RETRY_MS = 5_000;
/** Longer than the manager takes for a migration. */
const ADMIN_TIMEOUT_MS = 40_000;
/** A held request may be between two instances: they are asked again after this time. */
const TAKE_RETRY_MS = 300;
/** Once an instance has said that it holds a request, the others may take this long to say so too. */
const TAKE_WAIT_MS = 500;
/** A request that has been resumed this often fails at its next loss. */
const MAX_RESUMPTIONS = 20;

export interface ClusterClientConfig {
  readonly bus: Bus;
  readonly managerAddress: Address;
  /** What is known of the managers' leadership; default: what decisions say of it. */
  readonly fence?: LeaderFence;
  /** Name of this API server; unique in the cluster. */
  readonly frontendId: string;
  readonly clock: Clock;
  /** What the API server serves; absent: whatever the instances serve. */
  readonly settings?: ServedSettings;
  /** The operators' token: a manager of another process wants a proof of it for their calls. */
  readonly adminToken?: string | null;
  /** The manager is lost. Until it is back, the client dispatches requests by itself. */
  readonly onManagerLost?: (reason: string) => void;
  /** A new manager has other settings and is not used; requests go to the known instances. */
  readonly onSettingsMismatch?: (reason: string) => void;
  /** A request is about to be resumed after its instance lost it. */
  readonly onResume?: (requestId: RequestId, reason: string) => void;
}

/** The instance that gets a request, and the steps after which the request moves on. */
interface Place {
  readonly link: InstanceLink;
  readonly expectedSteps?: number;
}

/**
 * An API server's view of the cluster. The manager decides which instance gets a request; the
 * request and its tokens then go directly between the API server and the instance.
 *
 * The instance that sends output under the highest epoch owns the request. Another instance that
 * sends output of it is told to drop it; its tokens, which are the same, are still delivered. When
 * the owner loses a request, another instance resumes it after the tokens that were delivered.
 */
export class ClusterClient implements Cluster {
  readonly frontendId: string;
  readonly #config: ClusterClientConfig;
  /** Requests that have not ended. */
  readonly #requests = new Map<RequestId, ClientRequest>();
  /** Requests whose sink was not called yet; they may have ended already. */
  readonly #unopened = new Map<RequestId, ClientRequest>();
  readonly #links: InstanceLinks;
  readonly #audit: LostRequestAudit;
  readonly #poison: PoisonDetector;
  #manager!: ManagerLink;
  /** For watchers of the cluster. */
  readonly monitor: ClusterMonitor;
  #listChanged = Promise.withResolvers<void>();
  #isClosed = false;

  private constructor(config: ClusterClientConfig) {
    this.#config = config;
    this.frontendId = config.frontendId;
    const { frontendId } = config;
    this.monitor = new ManagerMonitor(() => this.#manager, config.clock);
    this.#poison = new PoisonDetector(config.clock, () => {
      this.#manager.notify("isolating", { frontendId });
    });
    this.#links = new InstanceLinks({
      ...config,
      onOutputs: this.#deliver,
      onLost: (link, reason) => this.#loseLink(link, reason),
    });
    this.#audit = new LostRequestAudit({
      clock: config.clock,
      links: () => this.#links.all,
      onMissing: (request, reason) => this.#recover(request, reason),
    });
  }

  /**
   * @throws {UnavailableError} the manager cannot be reached
   * @throws {UsageError} its instances have other settings
   */
  static async connect(config: ClusterClientConfig): Promise<ClusterClient> {
    const client = new ClusterClient(config);
    client.#manager = await ManagerLink.connect({
      ...config,
      address: config.managerAddress,
      onList: (list, isFirst) => {
        client.#links.update(list, isFirst);
        client.#wakeWaiters();
      },
      onQuery: (query) => unplacedRequests(client.#requests.values(), query, config.clock.nowMs()),
      onLost: (reason) => {
        client.#links.noteManagerLost();
        config.onManagerLost?.(reason);
      },
      onSettingsMismatch: (reason) => {
        config.onSettingsMismatch?.(reason);
        client.#wakeWaiters();
      },
    });
    return client;
  }

  instances(): readonly InstanceRegistration[] {
    return this.#links.list.instances;
  }

  /** Number of requests that have not ended. */
  get numRequests(): number {
    return this.#requests.size;
  }

  /**
   * The instance that has a request; null while none has it. Of a request that has just ended: the last
   * one that had it.
   */
  instanceOf(requestId: RequestId): InstanceId | null {
    const entry = this.#requests.get(requestId);
    if (entry && !entry.hasEnded) return entry.link?.instanceId ?? null;
    return (entry ?? this.#unopened.get(requestId))?.lastInstanceId ?? null;
  }

  isReady(): boolean {
    const { instances, expectedInstances, takesRequests } = this.#links.list;
    if (this.#manager.settingsMismatch !== null) return !this.#isHopeless;
    return instances.length > 0 && instances.length >= expectedInstances && takesRequests !== false;
  }

  /** See {@linkcode InstanceLinks.untilServing}. */
  async untilServing(instanceId: InstanceId): Promise<void> {
    await this.#links.untilServing(instanceId);
  }

  async submit(request: SubmittedRequest, sink: OutputSink): Promise<void> {
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
      this.#forgetUnopened(entry);
      this.#forget(entry);
      throw error;
    }
    // In a later turn: the caller learns that the request was accepted before its sink is called.
    this.#config.clock.soon(() => {
      this.#forgetUnopened(entry);
      entry.open();
    });
  }

  async take(requestId: RequestId, leastTokens: number): Promise<HeldRequest> {
    const first = await this.#askAllFor(requestId, leastTokens);
    if (!(first instanceof Error)) return first;
    await sleep(this.#config.clock, TAKE_RETRY_MS);
    const second = await this.#askAllFor(requestId, leastTokens);
    if (second instanceof Error) throw second;
    return second;
  }

  /** Of several instances that hold the request, the last that had it counts. */
  async #askAllFor(requestId: RequestId, leastTokens: number): Promise<HeldRequest | LlumnixError> {
    const links = [...this.#links.all];
    if (links.length === 0) return new UnavailableError("no instance serves; try again later");
    const found: HeldRequest[] = [];
    const failures: Error[] = [];
    const isFound = Promise.withResolvers<void>();
    const asked = links.map(async (link) => {
      try {
        const held = await link.take(requestId);
        if (held === null || held.tokenIds.length < leastTokens) return;
        found.push(held);
        isFound.resolve();
      } catch (error) {
        failures.push(error as Error);
      }
    });
    const othersAreLate = isFound.promise.then(() => sleep(this.#config.clock, TAKE_WAIT_MS));
    await Promise.race([Promise.all(asked), othersAreLate]);
    if (found.length > 0) return found.reduce((a, b) => isNewer(b, a) ? b : a);
    if (failures.length === 0) {
      return new LlumnixError("not_found", `no instance holds the request ${requestId}`);
    }
    const what = "an instance that may hold the request does not answer";
    return new UnavailableError(`${what}: ${failures[0].message}`);
  }

  /** Makes an operator's call to the manager. */
  readonly admin: AdminCall = (method, ask) => this.#manager.operate(method, ask, ADMIN_TIMEOUT_MS);

  /** When the connection to the manager ends, the manager that takes over is at this address. */
  moveManager(address: Address): void {
    this.#manager.moveTo(address);
  }

  /** Another manager leads now, at this address. */
  switchManager(address: Address): void {
    this.#manager.switchTo(address);
  }

  abort(requestId: RequestId): void {
    const entry = this.#requests.get(requestId) ?? this.#unopened.get(requestId);
    if (!entry) return;
    entry.abort();
    entry.link?.abort(requestId);
    this.#forgetUnopened(entry); // it may still wait for an instance, and be resumed under its id meanwhile
    this.#forget(entry);
  }

  /** Ends the requests that are left with an error, and closes all connections. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#audit.close();
    this.#poison.close();
    this.#listChanged.resolve(); // waiting requests look again, and see that the client is closed
    const closing = this.#manager.close();
    const reason = "the API server is closing";
    for (const entry of [...this.#requests.values()]) this.#fail(entry, reason);
    await Promise.all([closing, this.#links.close(reason)]);
  }

  /**
   * Gives a request to an instance, and to another one if the first is lost before it answers.
   * Waits while no instance can take the request.
   * @throws {LlumnixError} an instance refused the request, or the API server is closing
   */
  async #place(entry: ClientRequest): Promise<void> {
    entry.isBeingPlaced = true;
    for (;;) {
      const listChanged = this.#listChanged.promise;
      const error = await this.#tryPlace(entry);
      if (error === null) break;
      if (this.#isClosed || this.#isHopeless || !mayPass(error, entry)) throw error;
      if (entry.isLostOnArrival) await this.#waitForIsolation(entry);
      const isListEmpty = this.#links.list.instances.length === 0;
      const pauseMs = isListEmpty ? EMPTY_LIST_RETRY_MS : PLACE_RETRY_MS;
      await settledOrDelayed(listChanged, this.#config.clock, pauseMs);
    }
    entry.isBeingPlaced = false;
    this.#audit.start();
    // Meanwhile the instance that took it, or one that it moved on to, may have lost it.
    if (entry.lostReason !== null) this.#recover(entry, entry.lostReason, true);
  }

  /**
   * Handles the loss of an instance before it answered: the request may be the cause.
   * @throws {UnavailableError} it is a poison request
   */
  async #waitForIsolation(entry: ClientRequest): Promise<void> {
    entry.isLostOnArrival = false;
    const objection = this.#poison.noteLoss(entry);
    if (objection !== null) throw new UnavailableError(objection);
    await new Promise<void>((resolve) => this.#poison.release(entry, resolve));
  }

  /** Returns why the request found no instance; null if one has it now, or if it has ended. */
  async #tryPlace(entry: ClientRequest): Promise<unknown> {
    if (entry.hasEnded) return null;
    const { requestId, promptTokens, priority } = entry;
    let link: InstanceLink | null = null;
    try {
      const isolatedBy = this.#poison.isIsolated(entry) ? this.frontendId : undefined;
      const place = await this.#dispatch({ requestId, promptTokens, priority, isolatedBy });
      link = place.link;
      if (entry.hasEnded || entry.link !== null) return null; // an instance still had it
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
    // Not another request that has the id by now, perhaps there and under the same epoch.
    if (entry.hasEnded && !this.#requests.has(requestId)) link?.abort(requestId, entry.epoch);
    return null;
  }

  async #dispatch(request: DispatchRequest): Promise<Place> {
    const reply = await this.#manager.dispatch(request);
    if (reply === null) return { link: this.#leastUsed() };
    return { link: this.#links.to(reply.instanceId), expectedSteps: reply.expectedSteps };
  }

  #leastUsed(): InstanceLink {
    const link = this.#links.leastUsed();
    if (link) return link;
    const { settingsMismatch } = this.#manager;
    throw new UnavailableError(
      settingsMismatch ?? "the manager is gone, and no instance is connected; try again later",
    );
  }

  /** Waiting does not help: the manager is not usable, and no instance is connected. */
  get #isHopeless(): boolean {
    return this.#manager.settingsMismatch !== null && this.#links.connected.length === 0;
  }

  /** Requests that wait for an instance try again now. */
  #wakeWaiters(): void {
    this.#listChanged.resolve();
    this.#listChanged = Promise.withResolvers();
  }

  #loseLink(link: InstanceLink, reason: string): void {
    this.#recoverAll(link, reason);
    // Its last outputs may be missing, or it had taken over requests that other links still list.
    this.#audit.hurry();
  }

  /** Resumes the requests of a lost instance elsewhere. */
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
    // One output may have ended the link, and a later one made it the owner of another request.
    if (link.isLost && link.requests.size > 0) this.#recoverAll(link, "its engine failed");
  };

  #accept(entry: ClientRequest, link: InstanceLink, output: RequestOutput, nowMs: number): void {
    const epoch = output.epoch ?? 0;
    if (epoch > entry.epoch) entry.own(link, epoch);
    const isOwner = entry.link === link && epoch === entry.epoch;
    const { finish } = output;
    if (output.tokenIds.length > 0) {
      link.noteProgress(nowMs);
      if (isOwner) entry.noteProgress(nowMs);
    }
    if (!isOwner && !finish) link.refuse(output);
    if (finish && isLoss(finish)) {
      entry.accept({ ...output, finish: undefined });
      if (!isOwner) return;
      const why = finish.error?.message ?? `${link.instanceId} dropped it`;
      if (finish.error?.kind === "internal") link.close(why); // its other requests are lost with it
      else this.#recover(entry, why);
      return;
    }
    if (finish?.reason === "error" && !isOwner) return;
    entry.accept(output);
    this.#poison.noteOutput(entry);
    if (!entry.hasEnded) return;
    if (!isOwner || !finish) entry.link?.abort(entry.requestId, entry.epoch);
    this.#forget(entry);
  }

  /**
   * Resumes a request whose owner does not have it any more.
   * @param mayBeCause the instance was lost, perhaps because of the request
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
    const objection = mayBeCause ? this.#poison.noteLoss(entry) : null;
    if (objection !== null) return this.#fail(entry, `${reason}; ${objection}`);
    if (entry.numResumptions === MAX_RESUMPTIONS) {
      return this.#fail(entry, `${reason}; it had been resumed ${MAX_RESUMPTIONS} times already`);
    }
    entry.numResumptions++;
    this.#config.onResume?.(entry.requestId, reason);
    this.#manager.notify("resumed", { requestId: entry.requestId, reason });
    this.#poison.release(entry, () => this.#resume(entry, reason));
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

  /** Another request may have the same id by now, as in {@linkcode #forget}. */
  #forgetUnopened(entry: ClientRequest): void {
    if (this.#unopened.get(entry.requestId) === entry) this.#unopened.delete(entry.requestId);
  }

  #forget(entry: ClientRequest): void {
    entry.own(null, entry.epoch);
    if (this.#requests.get(entry.requestId) === entry) this.#requests.delete(entry.requestId);
    this.#poison.forget(entry);
  }
}

/** Adds the time of receipt to outputs of requests that asked for timestamps. */
function stamped(output: RequestOutput, receivedMs: number): RequestOutput {
  return output.timing ? { ...output, timing: { ...output.timing, receivedMs } } : output;
}

/** Whether a finish means that the instance stops, is broken, or dropped the request. */
function isLoss({ reason, error }: Finish): boolean {
  if (reason === "abort") return true;
  return reason === "error" && (error?.kind === "unavailable" || error?.kind === "internal");
}

function isNewer(held: HeldRequest, than: HeldRequest): boolean {
  if (held.epoch !== than.epoch) return held.epoch > than.epoch;
  return held.tokenIds.length > than.tokenIds.length;
}

/** Whether to try again. A request that has started is not given up because queues are full. */
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
