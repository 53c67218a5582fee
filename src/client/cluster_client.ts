import type { Address, Bus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import type { Cluster, OutputSink } from "../core/cluster.ts";
import { LlumnixError, RequestError, toErrorRecord, UnavailableError } from "../core/errors.ts";
import type { AdminCall } from "../core/protocol/calls.ts";
import type { DispatchRequest } from "../core/protocol/dispatch.ts";
import type {
  Finish,
  GenerateRequest,
  InstanceId,
  OutputBatch,
  RequestId,
  RequestOutput,
} from "../core/protocol/generate.ts";
import type { InstanceRegistration, ServedSettings } from "../core/protocol/membership.ts";
import { ClientRequest } from "./client_request.ts";
import { homelessRequests } from "./unplaced_requests.ts";
import type { InstanceLink } from "./instance_link.ts";
import { InstanceLinks } from "./instance_links.ts";
import { ManagerLink } from "./manager_link.ts";
import { SilenceAudit } from "./lost_request_audit.ts";
import { Suspects } from "./poison_detector.ts";

/** Pause before an instance is sought again, unless the list of instances changes before. */
const PLACE_RETRY_MS = 200;
/** The same while there is no instance: all that can help is one that comes. */
const NOBODY_RETRY_MS = 5_000;
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
  /** Of operators, who need it to reach a manager of another process. */
  readonly adminToken?: string | null;
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
  readonly #links: InstanceLinks;
  readonly #audit: SilenceAudit;
  readonly #suspects: Suspects;
  #manager!: ManagerLink;
  #listChanged = Promise.withResolvers<void>();
  #isClosed = false;

  private constructor(config: ClusterClientConfig) {
    this.#config = config;
    this.frontendId = config.frontendId;
    const { frontendId } = config;
    this.#suspects = new Suspects(config.clock, () => {
      this.#manager.notify("isolating", { frontendId });
    });
    this.#links = new InstanceLinks({
      ...config,
      onOutputs: this.#deliver,
      onLost: (link, reason) => this.#loseLink(link, reason),
    });
    this.#audit = new SilenceAudit({
      clock: config.clock,
      links: () => this.#links.all,
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
      onList: (list, isFirst) => {
        client.#links.update(list, isFirst);
        client.#wake();
      },
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
    return this.#links.list.instances;
  }

  /** Requests that have not ended. */
  get numRequests(): number {
    return this.#requests.size;
  }

  isReady(): boolean {
    const { instances, expectedInstances, takesRequests } = this.#links.list;
    if (this.#manager.misfit !== null) return !this.#isHopeless;
    return instances.length > 0 && instances.length >= expectedInstances && takesRequests !== false;
  }

  /** See {@linkcode InstanceLinks.untilServing}. */
  async untilServing(instanceId: InstanceId): Promise<void> {
    await this.#links.untilServing(instanceId);
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

  /** Makes an operator's call to the manager. */
  readonly admin: AdminCall = (method, ask) => this.#manager.operate(method, ask, ADMIN_TIMEOUT_MS);

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
    const closing = this.#manager.close();
    const reason = "the API server is closing";
    for (const entry of [...this.#requests.values()]) this.#fail(entry, reason);
    await Promise.all([closing, this.#links.close(reason)]);
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
      const isAnyThere = this.#links.list.instances.length > 0;
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
      const isolatedBy = entry.isTried ? this.frontendId : undefined;
      const place = await this.#dispatch({ requestId, promptTokens, priority, isolatedBy });
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
    if (reply === null) return { link: this.#leastUsed() };
    return { link: this.#links.to(reply.instanceId), expectedSteps: reply.expectedSteps };
  }

  #leastUsed(): InstanceLink {
    const link = this.#links.leastUsed();
    if (link) return link;
    const { misfit } = this.#manager;
    throw new UnavailableError(misfit ?? "the manager is gone, and no instance is known here");
  }

  /** Waiting does not help. */
  get #isHopeless(): boolean {
    return this.#manager.misfit !== null && this.#links.connected.length === 0;
  }

  /** Whoever waits for an instance looks again. */
  #wake(): void {
    this.#listChanged.resolve();
    this.#listChanged = Promise.withResolvers();
  }

  #loseLink(link: InstanceLink, reason: string): void {
    this.#recoverAll(link, reason);
    // What it had sent last is missing elsewhere, or it had taken over what is thought elsewhere.
    this.#audit.hurry();
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
      link.noteProgress(nowMs);
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
