import type { Address, Bus, Peer, Service } from "../bus/bus.ts";
import { obey } from "../bus/obey.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { LlumnixError, UnavailableError } from "../core/errors.ts";
import type { LeaderFence } from "../core/leader_fence.ts";
import { untilManagerAnswers } from "../core/manager_wait.ts";
import type { NoticeOf, NotificationName } from "../core/protocol/calls.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceRegistration, JoinReply, JoinRequest } from "../core/protocol/membership.ts";
import { isNewer, type StandingOrders } from "../core/protocol/standing_orders.ts";

/** Pause between two attempts to join again after the manager was lost. */
const REJOIN_INTERVAL_MS = 200;
/** How long an instance tries to join a new leader, at least: it leads already. */
const LEADER_WAIT_MS = 30_000;

export interface ManagerSessionConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly managerAddress: Address;
  readonly instanceId: InstanceId;
  /** Tells this process from others that have or had the same instance id. */
  readonly incarnation: string;
  readonly startedBy?: JoinRequest["startedBy"];
  /** How long {@linkcode ManagerSession.join} waits for a manager; 0: it tries once. */
  readonly managerWaitMs: number;
  /** How long a registered instance that lost the manager tries to join again; 0: not at all. */
  readonly rejoinTimeoutMs: number;
  /** Refuses managers whose leadership is over. */
  readonly fence: LeaderFence;
  /** Calls and notifications that the manager sends to the instance. */
  readonly service: Pick<Service, "calls" | "notifications">;
  /** The instance as it is now. Called only after {@linkcode ManagerSession.register} was. */
  readonly registration: () => InstanceRegistration;
  /** The instance is ending: the session makes no further attempts. */
  readonly hasEnded: () => boolean;
  /** No manager answers yet, and the session waits for one. */
  readonly onWait: () => void;
  /** A manager, perhaps another one, has taken the instance back. */
  readonly onRejoin: () => void;
  /** The manager is lost for good, and the instance has to end. */
  readonly onLost: (reason: string) => void;
}

/**
 * An instance's connection to its manager.
 *
 * The instance joins before it loads the model, so that the manager sees its progress and its
 * errors. It registers once it can serve. From then on a lost manager is not the end: requests and
 * tokens do not pass through the manager, so the instance serves on and tries to join again.
 */
export class ManagerSession {
  readonly #config: ManagerSessionConfig;
  #address: Address;
  /** `registering`: the manager knows, or is about to know, that the instance serves. */
  #phase: "joining" | "loading" | "registering" | "serving" = "joining";
  #peer: Peer | null = null;
  #isRejoining = false;
  /** Settled when another manager leads: an attempt under way may wait for a host that does not answer. */
  #moved = Promise.withResolvers<void>();
  /** For the next manager; undefined: none has sent any. */
  #orders: StandingOrders | undefined = undefined;
  /** How long a successor of the manager that is connected now may take; 0: none was announced. */
  #successorWaitMs = 0;

  constructor(config: ManagerSessionConfig) {
    this.#config = config;
    this.#address = config.managerAddress;
  }

  /** The manager is connected now. */
  get isConnected(): boolean {
    return this.#peer?.isOpen === true;
  }

  /** IP address by which the manager's network reaches this host; null unless they are connected by TCP. */
  get localHost(): string | null {
    return this.#peer?.localHost ?? null;
  }

  /** {@linkcode register} was called: API servers may know the instance. */
  get hasRegistered(): boolean {
    return this.#phase === "registering" || this.#phase === "serving";
  }

  /**
   * Joins the manager, and waits for one if none answers. Call it once, first.
   * @throws {UnavailableError} no manager that accepts instances answered in time
   */
  async join(): Promise<JoinReply> {
    const { managerWaitMs, clock, onWait, hasEnded } = this.#config;
    const wait = {
      address: this.#address,
      clock,
      timeoutMs: managerWaitMs,
      onWait,
      isGivenUp: hasEnded,
    };
    const reply = await untilManagerAnswers(wait, async () => {
      await this.close(); // the connection of the attempt before
      return await this.#join();
    });
    if (hasEnded()) return reply;
    this.#phase = "loading";
    if (!this.isConnected) this.#lose();
    return reply;
  }

  /**
   * Tells the manager that the instance can serve. A manager that ends before it answers may have
   * told API servers of the instance: it counts as lost, and the session tries to join again.
   * @throws {LlumnixError} the manager refuses the registration, or the session may not join again
   */
  async register(): Promise<void> {
    this.#phase = "registering";
    try {
      await this.#register();
      this.#phase = "serving";
    } catch (error) {
      if (this.isConnected || this.#config.rejoinTimeoutMs === 0) throw error;
      this.#phase = "serving";
      this.#lose();
    }
  }

  /** Sends the registration anew: it has changed. A lost manager gets it when it is back. */
  update(): void {
    if (this.hasRegistered) this.#register().catch(() => {});
  }

  /** Sends a notification; without a manager it is dropped. */
  notify<M extends NotificationName>(method: M, data: NoticeOf<M>): void {
    this.#peer?.notify(method, { data });
  }

  /**
   * Tells the manager that the instance is about to drain.
   * @returns false if the manager wants it to serve on; true also without a manager, or if another one
   *   leads. Never rejects.
   */
  async askToDrain(): Promise<boolean> {
    try {
      const peer = this.#peer!;
      const { data } = await peer.call("drain", { data: null });
      obey(this.#config.fence, data, peer);
      return data.mayDrain;
    } catch {
      return true;
    }
  }

  /**
   * Another manager leads now, at this address. A serving instance leaves the present one, if that is at
   * another address, and joins; one that has not registered yet does so once it serves.
   */
  moveTo(address: Address): void {
    if (address === this.#address) return;
    this.#address = address;
    this.#moved.resolve();
    this.#moved = Promise.withResolvers();
    if (this.#phase !== "serving") return;
    this.#successorWaitMs = Math.max(this.#successorWaitMs, LEADER_WAIT_MS);
    const peer = this.#peer;
    this.#peer = null;
    peer?.close();
    this.#lose();
  }

  /** The next manager gets these when the instance joins it. */
  keepOrders(orders: StandingOrders): void {
    if (isNewer(orders, this.#orders)) this.#orders = orders;
  }

  /** The manager is about to give its place to a successor, which has this long to take it. */
  expectSuccessor(waitMs: number): void {
    this.#successorWaitMs = waitMs;
  }

  /** Closes the connection; no attempt to join again follows from it. Idempotent. */
  async close(): Promise<void> {
    const peer = this.#peer;
    this.#peer = null;
    await peer?.close();
  }

  async #join(): Promise<JoinReply> {
    const { bus, instanceId, incarnation, startedBy, service } = this.#config;
    const isRunning = this.#phase === "serving";
    const moved = this.#moved;
    const peer = await bus.connect(this.#address, {
      ...service,
      onClose: (peer) => {
        if (this.#peer === peer) this.#lose();
      },
    });
    if (this.#moved !== moved) {
      peer.close();
      throw new UnavailableError("another manager leads now");
    }
    this.#peer = peer;
    const { data } = await peer.call("join", {
      data: {
        instanceId,
        incarnation,
        isRunning,
        registration: isRunning ? this.#config.registration() : undefined,
        startedBy,
        orders: this.#orders,
      } satisfies JoinRequest,
    });
    obey(this.#config.fence, data, peer);
    return data;
  }

  async #register(): Promise<void> {
    await this.#peer!.call("register", { data: this.#config.registration() });
  }

  #lose(): void {
    // The caller of `join` or `register` gets the error.
    if (this.#phase === "joining" || this.#phase === "registering") return;
    const { hasEnded, onLost } = this.#config;
    const rejoinTimeoutMs = Math.max(this.#config.rejoinTimeoutMs, this.#successorWaitMs);
    const mayRejoin = this.#phase === "serving" && rejoinTimeoutMs > 0;
    if (!mayRejoin) onLost("the manager is gone");
    else if (!hasEnded() && !this.#isRejoining) this.#rejoin(rejoinTimeoutMs);
  }

  async #rejoin(rejoinTimeoutMs: number): Promise<void> {
    const { clock, hasEnded, onLost } = this.#config;
    const deadlineMs = clock.nowMs() + rejoinTimeoutMs;
    this.#isRejoining = true;
    while (!hasEnded()) {
      const moved = this.#moved;
      const attempt = Promise.race([this.#tryRejoin(), moved.promise.then(() => false)]);
      // The new connection may have ended together with its answer, while this loop still ran.
      if (await attempt && this.isConnected) break;
      if (this.#moved !== moved) continue; // at once
      if (clock.nowMs() >= deadlineMs) {
        onLost(`the manager is gone, and did not come back in ${rejoinTimeoutMs} ms`);
      }
      await Promise.race([sleep(clock, REJOIN_INTERVAL_MS), moved.promise]);
    }
    this.#isRejoining = false;
  }

  async #tryRejoin(): Promise<boolean> {
    const moved = this.#moved;
    try {
      await this.#join();
      await this.#register();
    } catch (error) {
      if (this.#moved !== moved) return false; // the connection is that of a later attempt
      await this.close();
      const isGivenUp = error instanceof LlumnixError && error.kind === "not_found";
      if (isGivenUp) this.#config.onLost(error.message);
      return false;
    }
    if (this.#moved !== moved) return false;
    this.#successorWaitMs = 0;
    this.#config.onRejoin();
    return true;
  }
}
