import type { InstanceId, RequestId } from "../../core/protocol/generate.ts";

/** A request that was dispatched and is in no report yet. */
interface PendingRequest {
  readonly blocks: number;
  readonly isHighPriority: boolean;
  readonly dispatchedMs: number;
}

/** What one instance is expected to have besides what it reports. */
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

/** Requests and their blocks: what an account adds to the report of its instance. */
export interface Pending {
  readonly requests: number;
  /** Those of them that have high priority. */
  readonly highPriorityRequests: number;
  readonly blocks: number;
}

const nothing: Pending = { requests: 0, highPriorityRequests: 0, blocks: 0 };

/**
 * The load that the manager has sent to instances and that their reports do not show yet, so that a
 * burst between two reports does not herd onto the instance that was the least loaded.
 *
 * Invariant: the account of an instance has every request that was dispatched to it within
 * `expiryMs` and that no report of it has counted. It may have more for a while, never less: a
 * request that its client gave up before it arrived stays until it expires. Without dispatches it
 * returns to exactly zero within `expiryMs`, whatever messages are lost.
 */
export class DispatchAccount {
  readonly #accounts = new Map<InstanceId, InstanceAccount>();
  /** Where each pending request is, oldest first. */
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

  /** @returns the instance that had the request before, when it is dispatched again; else null */
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

  /** Drops what is too old to arrive. @returns the instances whose account changed */
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

  /** The instance is gone, and with it what was sent to it. */
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
