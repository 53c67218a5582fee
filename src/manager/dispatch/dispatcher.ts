import type { DispatchRequest } from "../../core/protocol/dispatch.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";
import type { InstanceRegistration } from "../../core/protocol/membership.ts";
import type { ManagerOptions } from "../../core/options.ts";
import type { Random } from "../../core/random.ts";
import {
  aheadBlocks,
  dispatchLoad,
  dispatchLoadWith,
  tellsRequestsApart,
} from "../load/load_metric.ts";
import type { ComingRequest } from "../load/policy.ts";
import {
  comingHeadroomBlocks,
  idleLoadInfo,
  type LoadInfo,
  type LoadState,
  loadStateOf,
  type LoadStateOptions,
} from "../load/load_state.ts";
import { createDispatchPolicy } from "./dispatch.ts";
import type { DispatchCandidate, DispatchPolicy } from "./policy.ts";
import { dispatchableOf } from "./dispatchable.ts";
import { DispatchAccount } from "./dispatch_account.ts";

/**
 * A request that its instance has not reported by then will not arrive: its client aborted it, or
 * messages were lost. Longer than a step, during which an instance reports nothing.
 */
const PENDING_EXPIRY_MS = 30_000;

export type DispatcherOptions = Pick<
  ManagerOptions,
  "dispatchPolicy" | "loadMetric" | "numDispatchInstances" | "priorityHeadroomBlocks"
>;

const idleState = loadStateOf(idleLoadInfo(0));

/** What the dispatcher needs to know about a serving instance. */
export interface ServingInstance {
  readonly registration: Pick<
    InstanceRegistration,
    "instanceId" | "instanceType" | "blockSize" | "totalBlocks"
  >;
  readonly isDraining: boolean;
}

/** An instance with its account: the data by which policies choose, kept up to date. */
interface Target extends DispatchCandidate {
  load: number;
  aheadBlocks: number;
  waitingRequests: number;
  /** For policies: begins with the count of the others. */
  dispatchedRequests: number;
  /** Counts from 0. */
  takenRequests: number;
  readonly instance: ServingInstance;
  info: LoadInfo;
  /** Its report or account has changed since the fields derived from them were computed: it is in `#stale`. */
  isStale: boolean;
  state: LoadState;
  /** Headroom that one more high-priority request would add; 0 if the instance has one already. */
  highHeadroomBlocks: number;
}

/**
 * Decides which instance takes a request, from the dispatch policy, the account and the limit on
 * dispatchable instances. Synchronous, over plain data; the caller passes the time. The rules are in
 * src/manager/README.md, "Dispatch".
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #policy: DispatchPolicy;
  readonly #account = new DispatchAccount(PENDING_EXPIRY_MS);
  #targets = new Map<InstanceId, Target>();
  /** Instances that may be chosen, sorted by id. */
  #candidates: Target[] = [];
  /** Those whose fields are computed anew before the next choice: of a thousand only a few. */
  #stale: Target[] = [];

  constructor(options: DispatcherOptions, random: Random) {
    this.#options = options;
    this.#policy = createDispatchPolicy(options.dispatchPolicy, random);
  }

  /** Requests that were dispatched and that no instance has reported yet. */
  get numPending(): number {
    return this.#account.numPending;
  }

  /** What was dispatched to an instance: all requests, and those that it has not reported yet. */
  numbersOf(instanceId: InstanceId): {
    readonly dispatchedRequests: number;
    readonly pendingRequests: number;
  } {
    return {
      dispatchedRequests: this.#targets.get(instanceId)?.takenRequests ?? 0,
      pendingRequests: this.#account.pendingOf(instanceId).requests,
    };
  }

  /** @param instances all serving instances, in the order in which they came */
  setInstances(instances: readonly ServingInstance[]): void {
    const before = this.#targets;
    // A new instance begins with the smallest count: with zero, `balanced` would send it every
    // request until it has caught up.
    const counts = [...before.values()].map(({ dispatchedRequests }) => dispatchedRequests);
    const fewest = counts.length === 0 ? 0 : Math.min(...counts);
    this.#targets = new Map();
    this.#stale = [];
    for (const instance of instances) {
      const { instanceId } = instance.registration;
      const known = before.get(instanceId);
      before.delete(instanceId);
      const target: Target = {
        instanceId,
        load: 0,
        aheadBlocks: 0,
        isStale: false,
        state: idleState,
        highHeadroomBlocks: 0,
        waitingRequests: 0,
        dispatchedRequests: known?.dispatchedRequests ?? fewest,
        takenRequests: known?.takenRequests ?? 0,
        instance,
        info: known?.info ?? idleLoadInfo(instance.registration.totalBlocks),
      };
      this.#targets.set(instanceId, target);
      this.#markStale(target);
    }
    for (const instanceId of before.keys()) this.#account.forget(instanceId);
    this.#candidates = dispatchableOf(
      [...this.#targets.values()].map((target) => ({
        target,
        instanceType: target.instance.registration.instanceType,
        isDraining: target.instance.isDraining,
      })),
      this.#options.numDispatchInstances,
    ).map(({ target }) => target).sort((a, b) => a.instanceId < b.instanceId ? -1 : 1);
  }

  /** Takes an instance's report. */
  report(info: InstanceInfo): void {
    const target = this.#targets.get(info.instanceId);
    if (!target) return;
    target.info = info;
    this.#account.reported(info.instanceId, info.receivedRequestIds);
    this.#markStale(target);
  }

  /** Chooses an instance and adds the request to its account; null if no instance takes requests. */
  dispatch(request: DispatchRequest, nowMs: number): InstanceId | null {
    this.expire(nowMs);
    if (this.#candidates.length === 0) return null;
    for (const stale of this.#stale) this.#update(stale);
    this.#stale.length = 0;
    this.#loadWith(request);
    const instanceId = this.#policy.choose(this.#candidates);
    const target = this.#targets.get(instanceId)!;
    const blocks = request.promptTokens / target.instance.registration.blockSize;
    const isHigh = request.priority === "high";
    const before = this.#account.dispatched(instanceId, request.requestId, blocks, nowMs, isHigh);
    if (before !== null) this.#markStale(this.#targets.get(before)!);
    target.dispatchedRequests++;
    target.takenRequests++;
    this.#markStale(target);
    return instanceId;
  }

  /** Drops requests from the accounts that are too old to arrive. */
  expire(nowMs: number): void {
    for (const instanceId of this.#account.expire(nowMs)) {
      this.#markStale(this.#targets.get(instanceId)!);
    }
  }

  #markStale(target: Target): void {
    if (target.isStale) return;
    target.isStale = true;
    this.#stale.push(target);
  }

  /** Where the metric depends on the request, computes each load as if the request were there. */
  #loadWith({ promptTokens, priority = "normal" }: DispatchRequest): void {
    const { loadMetric } = this.#options;
    if (!tellsRequestsApart(loadMetric)) return;
    for (const target of this.#candidates) {
      const coming: ComingRequest = {
        priority,
        blocks: promptTokens / target.instance.registration.blockSize,
        headroomBlocks: priority === "high" ? target.highHeadroomBlocks : 0,
      };
      target.load = dispatchLoadWith(loadMetric, target.state, coming);
      target.aheadBlocks = aheadBlocks(loadMetric, target.state, coming);
    }
  }

  #update(target: Target): void {
    target.isStale = false;
    const { requests, highPriorityRequests, blocks } = this.#account.pendingOf(target.instanceId);
    const options: LoadStateOptions = {
      priorityHeadroomBlocks: this.#options.priorityHeadroomBlocks,
      isDraining: target.instance.isDraining,
      pendingRequests: requests,
      pendingHighPriorityRequests: highPriorityRequests,
      pendingBlocks: blocks,
    };
    target.state = loadStateOf(target.info, options);
    target.highHeadroomBlocks = comingHeadroomBlocks(target.info, options);
    target.load = dispatchLoad(this.#options.loadMetric, target.state);
    target.waitingRequests = target.info.waitingRequests + requests;
  }
}
