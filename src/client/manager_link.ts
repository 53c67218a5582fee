import type { Address, Bus, Peer } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { UnavailableError, UsageError } from "../core/errors.ts";
import { operatorProof } from "../core/operator_proof.ts";
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

/** A manager that takes longer over a dispatch, which it decides at once, is as good as gone. */
const DISPATCH_TIMEOUT_MS = 2_000;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5_000;

export interface ManagerLinkConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly address: Address;
  /** What the API server is made for; absent: anything. */
  readonly settings?: ServedSettings;
  /** Of operators. */
  readonly adminToken?: string | null;
  /** @param isFirst of a connection: it says nothing about what former lists had */
  readonly onList: (list: InstanceList, isFirst: boolean) => void;
  /** Which requests wait for an instance. */
  readonly onQuery: (query: RequestsQuery) => RequestsReply;
  readonly onLost?: (reason: string) => void;
  /** The manager that is there now serves something else: it is left alone until another comes. */
  readonly onMisfit?: (reason: string) => void;
}

/** An API server's connection to the manager, which is made again whenever it ends. */
export class ManagerLink {
  readonly #config: ManagerLinkConfig;
  #peer: Peer | null = null;
  /** Knows that this process has the admin token. */
  #provenTo: Peer | null = null;
  #cancelRetry: (() => void) | null = null;
  #misfit: string | null = null;
  #isClosed = false;

  private constructor(config: ManagerLinkConfig) {
    this.#config = config;
  }

  /**
   * @throws {UnavailableError} the manager cannot be reached
   * @throws {UsageError} it serves something else
   */
  static async connect(config: ManagerLinkConfig): Promise<ManagerLink> {
    const link = new ManagerLink(config);
    await link.#connect();
    return link;
  }

  /** Why the manager that is there now is not used: it serves something else. */
  get misfit(): string | null {
    return this.#misfit;
  }

  /**
   * The manager's choice; null when there is no manager to ask.
   * @throws {UnavailableError} no instance can take it
   */
  async dispatch(request: DispatchRequest): Promise<DispatchReply | null> {
    const peer = this.#peer;
    if (peer === null) return null;
    const { clock } = this.#config;
    const askedMs = clock.nowMs();
    try {
      const options = { timeoutMs: DISPATCH_TIMEOUT_MS };
      const { data } = await peer.call("dispatch", { data: request }, options);
      return data;
    } catch (error) {
      // An error that came much sooner than the time-out is the manager's own.
      if (peer.isOpen && clock.nowMs() - askedMs < DISPATCH_TIMEOUT_MS / 2) throw error;
      this.#lose(peer, "it does not answer");
      return null;
    }
  }

  /**
   * Makes any other call.
   * @throws {UnavailableError} there is no manager, or it does not answer
   * @throws {LlumnixError} the manager's own error
   */
  async call<M extends CallName>(
    method: M,
    data: RequestOf<M>,
    timeoutMs: number,
  ): Promise<ReplyOf<M>> {
    if (this.#peer === null) {
      throw new UnavailableError(this.#misfit ?? "the manager is gone; try again later");
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
    if (peer !== null && token && peer.pid !== Deno.pid && this.#provenTo !== peer) {
      const { challenge } = await this.call("operator_challenge", null, timeoutMs);
      await this.call("operator_prove", { proof: operatorProof(token, challenge) }, timeoutMs);
      this.#provenTo = peer;
    }
    return await this.call(method, data, timeoutMs);
  }

  /** Lost when there is no manager. */
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

  async #connect(): Promise<void> {
    const { bus, address, onList, onQuery } = this.#config;
    let newest: number | null = null;
    let misfit = null as string | null;
    const peer: Peer = await bus.connect(address, {
      calls: { requests: ({ data }) => ({ data: onQuery(data) }) },
      notifications: {
        instances: ({ data: list }) => {
          if (this.#isClosed || (newest !== null && list.version <= newest)) return;
          const isFirst = newest === null;
          newest = list.version;
          misfit = this.#misfitOf(list);
          if (misfit !== null) return this.#lose(peer, misfit);
          this.#misfit = null;
          onList(list, isFirst);
        },
      },
      onClose: (peer, reason) => this.#lose(peer, reason),
    });
    try {
      await peer.call("subscribe", { data: null }); // the list arrives before the answer
      if (misfit !== null) throw new UsageError(misfit);
    } catch (error) {
      await peer.close();
      throw error;
    }
    if (this.#isClosed) await peer.close();
    else this.#peer = peer;
    if (!peer.isOpen) this.#lose(peer, "closed by the other end");
  }

  #lose(peer: Peer, reason: string): void {
    if (this.#peer !== peer) return;
    this.#peer = null;
    peer.close();
    this.#config.onLost?.(reason);
    this.#reconnectAfter(FIRST_RETRY_MS);
  }

  #reconnectAfter(delayMs: number): void {
    if (this.#isClosed) return;
    this.#cancelRetry = this.#config.clock.after(delayMs, () => {
      this.#connect().catch((error) => {
        this.#noteMisfit(error instanceof UsageError ? error.message : null);
        this.#reconnectAfter(Math.min(2 * delayMs, MAX_RETRY_MS));
      });
    });
  }

  #noteMisfit(misfit: string | null): void {
    const isNews = misfit !== null && misfit !== this.#misfit && !this.#isClosed;
    this.#misfit = misfit;
    if (isNews) this.#config.onMisfit?.(misfit);
  }

  #misfitOf({ settings, instances }: InstanceList): string | null {
    const own = this.#config.settings, served = settings ?? instances[0];
    if (!own || !served) return null;
    const difference = settingsDifference(own, served, "this API server", "its manager");
    return difference && `${difference}: give both the same`;
  }
}
