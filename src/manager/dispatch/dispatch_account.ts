import type { InstanceId, RequestId } from "../../core/protocol/generate.ts";

/** A request that was dispatched and that its instance has not reported yet. */
interface PendingRequest {
  readonly blocks: number;
  readonly isHighPriority: boolean;
  readonly dispatchedMs: number;
}

/** The requests that were dispatched to one instance and that it has not reported yet. */
class InstanceAccount {
  /** In the order of dispatch. */
  readonly requests = new Map<RequestId, PendingRequest>();
  blocks = 0;
  highPriorityRequests = 0;

  add(requestId: RequestId, request: PendingRequest): void {
    this.requests.set(requestId, request);
    this.blocks += request.blocks;
    if (request.isHighPriority) this.highPriorityRequests++;
  }

  remove(requestId: RequestId): void {
    const request = this.requests.get(requestId);
    if (!request) return;
    this.requests.delete(requestId);
    // Sums of fractions drift; an empty account is exactly zero.
    this.blocks = this.requests.size === 0 ? 0 : this.blocks - request.blocks;
    if (request.isHighPriority) this.highPriorityRequests--;
  }
}

/** What the account of an instance adds to the instance's own report. */
export interface Pending {
  readonly requests: number;
  /** How many of `requests` have high priority. */
  readonly highPriorityRequests: number;
  readonly blocks: number;
}

const nothing: Pending = { requests: 0, highPriorityRequests: 0, blocks: 0 };

/**
 * The load that the manager has sent to instances and that their reports do not show yet. Without it,
 * all requests of a burst between two reports would go to the instance that was the least loaded.
 *
 * Invariant: the account of an instance holds every request that was dispatched to it within the last
 * `expiryMs` and that none of its reports has counted. The account may hold more for a while, but
 * never less: a request that its client aborted before it arrived stays until it expires. Without
 * dispatches the account returns to exactly zero within `expiryMs`, even if messages are lost.
 */
export class DispatchAccount {
  readonly #accounts = new Map<InstanceId, InstanceAccount>();
  /** The instance of each pending request, oldest request first. */
  readonly #instanceOf = new Map<RequestId, InstanceId>();

  constructor(private readonly expiryMs: number) {}

  /** Pending requests of all instances. */
  get numPending(): number {
    return this.#instanceOf.size;
  }

  pendingOf(instanceId: InstanceId): Pending {
    const account = this.#accounts.get(instanceId);
    if (!account) return nothing;
    const { requests, highPriorityRequests, blocks } = account;
    return { requests: requests.size, highPriorityRequests, blocks };
  }

  /** @returns the previous instance of a request that is dispatched again; else null */
  dispatched(
    instanceId: InstanceId,
    requestId: RequestId,
    blocks: number,
    nowMs: number,
    isHighPriority = false,
  ): InstanceId | null {
    const before = this.#remove(requestId);
    let account = this.#accounts.get(instanceId);
    if (!account) this.#accounts.set(instanceId, account = new InstanceAccount());
    account.add(requestId, { blocks, isHighPriority, dispatchedMs: nowMs });
    this.#instanceOf.set(requestId, instanceId);
    return before;
  }

  /** A report of the instance counts these requests. */
  reported(instanceId: InstanceId, receivedRequestIds: readonly RequestId[]): void {
    for (const requestId of receivedRequestIds) {
      if (this.#instanceOf.get(requestId) === instanceId) this.#remove(requestId);
    }
  }

  /** Drops requests that are too old to arrive. @returns the instances whose account changed */
  expire(nowMs: number): InstanceId[] {
    const changed: InstanceId[] = [];
    for (const [requestId, instanceId] of this.#instanceOf) {
      const { dispatchedMs } = this.#accounts.get(instanceId)!.requests.get(requestId)!;
      if (nowMs - dispatchedMs < this.expiryMs) break;
      this.#remove(requestId);
      changed.push(instanceId);
    }
    return changed;
  }

  /** The instance is gone, and so are the requests that were sent to it. */
  forget(instanceId: InstanceId): void {
    const account = this.#accounts.get(instanceId);
    if (!account) return;
    for (const requestId of account.requests.keys()) this.#instanceOf.delete(requestId);
    this.#accounts.delete(instanceId);
  }

  #remove(requestId: RequestId): InstanceId | null {
    const instanceId = this.#instanceOf.get(requestId);
    if (instanceId === undefined) return null;
    this.#instanceOf.delete(requestId);
    this.#accounts.get(instanceId)!.remove(requestId);
    return instanceId;
  }
}
