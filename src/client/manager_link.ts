import type { Address, Bus, Peer } from "../bus/bus.ts";
import { isObeyed } from "../bus/obey.ts";
import type { Clock } from "../core/clock.ts";
import { UnavailableError, UsageError } from "../core/errors.ts";
import { LeaderFence } from "../core/leader_fence.ts";
import type { RequestsQuery, RequestsReply } from "../core/protocol/admin.ts";
import type {
  AdminCallName,
  CallName,
  NoticeOf,
  NotificationName,
  ReplyOf,
  RequestOf,
} from "../core/protocol/calls.ts";
import type { DispatchReply, DispatchRequest } from "../core/protocol/dispatch.ts";
import type { InstanceList, ServedSettings } from "../core/protocol/membership.ts";
import { settingsDifference } from "../core/served_settings.ts";
import { proveOperatorTo } from "./operator_proof_to.ts";

/**
 * A manager decides a dispatch at once: one that takes longer counts as lost. Dispatches that wait for a
 * manager whose host is gone end before, when another one leads.
 */
const DISPATCH_TIMEOUT_MS = 1_500;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5_000;
const SUPERSEDED = "it no longer leads: another manager does";

export interface ManagerLinkConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly address: Address;
  /** What the API server serves; absent: whatever the instances serve. */
  readonly settings?: ServedSettings;
  /** The operators' token. */
  readonly adminToken?: string | null;
  /** What is known of the managers' leadership; default: what decisions say of it. */
  readonly fence?: LeaderFence;
  /** @param isFirst the first list of a connection: it says nothing about earlier lists */
  readonly onList: (list: InstanceList, isFirst: boolean) => void;
  /** The manager asks which requests no instance has. */
  readonly onQuery: (query: RequestsQuery) => RequestsReply;
  readonly onLost?: (reason: string) => void;
  /** The manager now at the address has other settings. It is not used until it is replaced. */
  readonly onSettingsMismatch?: (reason: string) => void;
}

/** An API server's connection to the manager. A connection that ends is made again. */
export class ManagerLink {
  readonly #config: ManagerLinkConfig;
  readonly #fence: LeaderFence;
  #address: Address;
  #peer: Peer | null = null;
  #cancelRetry: (() => void) | null = null;
  /** Attempts to connect again; of several under way only the latest counts. */
  #numAttempts = 0;
  #mismatch: string | null = null;
  #isClosed = false;

  private constructor(config: ManagerLinkConfig) {
    this.#config = config;
    this.#address = config.address;
    this.#fence = config.fence ?? new LeaderFence("the API server");
  }

  /**
   * @throws {UnavailableError} the manager cannot be reached
   * @throws {UsageError} its instances have other settings
   */
  static async connect(config: ManagerLinkConfig): Promise<ManagerLink> {
    const link = new ManagerLink(config);
    await link.#connect(() => true);
    return link;
  }

  /** Why the manager now at the address is not used: the settings that differ. Else null. */
  get settingsMismatch(): string | null {
    return this.#mismatch;
  }

  /**
   * The manager's choice of an instance; null without a manager.
   * @throws {UnavailableError} no instance can take the request now
   */
  async dispatch(request: DispatchRequest): Promise<DispatchReply | null> {
    const peer = this.#peer;
    if (peer === null) return null;
    const { clock } = this.#config;
    const askedMs = clock.nowMs();
    try {
      const options = { timeoutMs: DISPATCH_TIMEOUT_MS };
      const { data } = await peer.call("dispatch", { data: request }, options);
      if (isObeyed(this.#fence, data, peer)) return data;
      this.#lose(peer, SUPERSEDED);
      return null;
    } catch (error) {
      // An error that comes long before the timeout is the manager's answer.
      if (peer.isOpen && clock.nowMs() - askedMs < DISPATCH_TIMEOUT_MS / 2) throw error;
      this.#lose(peer, "it does not answer");
      return null;
    }
  }

  /**
   * Calls a method of the manager.
   * @throws {UnavailableError} there is no manager, or it does not answer
   * @throws {LlumnixError} the manager's answer is an error
   */
  async call<M extends CallName>(
    method: M,
    data: RequestOf<M>,
    timeoutMs: number,
  ): Promise<ReplyOf<M>> {
    if (this.#peer === null) {
      throw new UnavailableError(this.#mismatch ?? "the manager is gone; try again later");
    }
    return (await this.#peer.call(method, { data }, { timeoutMs })).data;
  }

  /**
   * Makes an operator's call, after a proof that this process has the admin token.
   * @throws {ConflictError} the manager has another, or none
   * @throws {LlumnixError} as {@linkcode call}
   */
  async operate<M extends AdminCallName>(
    method: M,
    data: RequestOf<M>,
    timeoutMs: number,
  ): Promise<ReplyOf<M>> {
    const peer = this.#peer, token = this.#config.adminToken;
    if (peer !== null && token && peer.pid !== Deno.pid) {
      await proveOperatorTo(peer, token, timeoutMs);
    }
    return await this.call(method, data, timeoutMs);
  }

  /** From the next connection on, the manager is at another address. */
  moveTo(address: Address): void {
    this.#address = address;
  }

  /** Another manager leads now: leaves the present one, if that is at another address, and connects. */
  switchTo(address: Address): void {
    const peer = this.#peer;
    if (address === this.#address || this.#isClosed) return;
    this.#address = address;
    if (peer !== null) return this.#lose(peer, SUPERSEDED, 0);
    this.#reconnectAfter(0); // an attempt under way may wait for a host that does not answer
  }

  /** Sends a notification; without a manager it is dropped. */
  notify<M extends NotificationName>(method: M, data: NoticeOf<M>): void {
    this.#peer?.notify(method, { data });
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelRetry?.();
    const peer = this.#peer;
    this.#peer = null;
    await peer?.close();
  }

  /** @param isLatest no other attempt has begun since */
  async #connect(isLatest: () => boolean): Promise<void> {
    const { bus, onList, onQuery } = this.#config;
    const address = this.#address;
    const isWanted = () => isLatest() && address === this.#address;
    let newest: number | null = null;
    let mismatch = null as string | null;
    let isSuperseded = false as boolean;
    const peer: Peer = await bus.connect(address, {
      calls: { requests: ({ data }) => ({ data: onQuery(data) }) },
      notifications: {
        instances: ({ data: list }) => {
          if (this.#isClosed || (newest !== null && list.version <= newest)) return;
          if (this.#peer !== peer && !isWanted()) return;
          const isFirst = newest === null;
          if (!isObeyed(this.#fence, list, peer)) {
            isSuperseded = true;
            return this.#lose(peer, SUPERSEDED);
          }
          newest = list.version;
          mismatch = this.#mismatchOf(list);
          if (mismatch !== null) return this.#lose(peer, mismatch);
          this.#mismatch = null;
          onList(list, isFirst);
        },
      },
      onClose: (peer, reason) => this.#lose(peer, reason),
    });
    try {
      await peer.call("subscribe", { data: null }); // the list arrives before the answer
      if (mismatch !== null) throw new UsageError(mismatch);
      if (isSuperseded || !isWanted()) throw new UnavailableError(SUPERSEDED);
    } catch (error) {
      await peer.close();
      throw error;
    }
    if (this.#isClosed) await peer.close();
    else this.#peer = peer;
    if (!peer.isOpen) this.#lose(peer, "closed by the other end");
  }

  #lose(peer: Peer, reason: string, retryMs = FIRST_RETRY_MS): void {
    if (this.#peer !== peer) return;
    this.#peer = null;
    peer.close();
    this.#config.onLost?.(reason);
    this.#reconnectAfter(retryMs);
  }

  #reconnectAfter(delayMs: number): void {
    if (this.#isClosed) return;
    this.#cancelRetry?.();
    const attempt = ++this.#numAttempts;
    const isLatest = () => attempt === this.#numAttempts;
    this.#cancelRetry = this.#config.clock.after(delayMs, () => {
      this.#connect(isLatest).catch((error) => {
        if (!isLatest()) return;
        this.#noteMismatch(error instanceof UsageError ? error.message : null);
        this.#reconnectAfter(Math.min(Math.max(2 * delayMs, FIRST_RETRY_MS), MAX_RETRY_MS));
      });
    });
  }

  #noteMismatch(mismatch: string | null): void {
    const isNews = mismatch !== null && mismatch !== this.#mismatch && !this.#isClosed;
    this.#mismatch = mismatch;
    if (isNews) this.#config.onSettingsMismatch?.(mismatch);
  }

  #mismatchOf({ settings, instances }: InstanceList): string | null {
    const own = this.#config.settings, served = settings ?? instances[0];
    if (!own || !served) return null;
    const difference = settingsDifference(own, served, "this API server", "its manager");
    return difference && `${difference}: give both the same`;
  }
}
