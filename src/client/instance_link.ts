import type { Bus, Peer } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import type { SubmittedRequest } from "../core/cluster.ts";
import { UnavailableError } from "../core/errors.ts";
import type {
  AbortNotice,
  HeldRequest,
  InstanceId,
  MissingRequest,
  OutputBatch,
  OwnershipEpoch,
  RequestId,
  RequestOutput,
} from "../core/protocol/generate.ts";
import { splitPrompt } from "../core/protocol/prompt_payload.ts";
import type { InstanceRegistration } from "../core/protocol/membership.ts";
import type { ClientRequest } from "./client_request.ts";

/** How long an instance may take to queue a request, or to say which requests it has. */
const ANSWER_TIMEOUT_MS = 5_000;
/** Least time between two aborts of the same request for stale output. */
const STALE_INTERVAL_MS = 1_000;

export interface InstanceLinkConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly registration: InstanceRegistration;
  readonly frontendId: string;
  readonly onOutputs: (link: InstanceLink, batch: OutputBatch) => void;
  /** Called once: the requests of the link must be resumed elsewhere. */
  readonly onLost: (link: InstanceLink, reason: string) => void;
}

/** An API server's connection to one instance. A lost link is not repaired but replaced. */
export class InstanceLink {
  /** The requests of this API server that the instance owns, as far as this side knows. */
  readonly requests = new Set<ClientRequest>();
  /** When the instance last sent tokens, and when it sent tokens before that. */
  progressedMs = -Infinity;
  formerProgressedMs = -Infinity;
  readonly #config: InstanceLinkConfig;
  /** Rejects if the link is lost before it is connected. */
  readonly #connecting: Promise<Peer>;
  readonly #lost = Promise.withResolvers<never>();
  #peer: Peer | null = null;
  #isGreeted = false;
  #isLost = false;
  /** The instance was stopped on purpose: no request is suspected of its end. */
  wasStopped = false;
  readonly #toldToDrop = new Set<RequestId>();
  #toldSinceMs = -Infinity;

  constructor(config: InstanceLinkConfig) {
    this.#config = config;
    this.#connecting = Promise.race([this.#connect(), this.#lost.promise]);
    this.#connecting.catch((error) => this.#lose(error.message));
  }

  get registration(): InstanceRegistration {
    return this.#config.registration;
  }

  get instanceId(): InstanceId {
    return this.registration.instanceId;
  }

  /** The instance has answered on this connection. */
  get isGreeted(): boolean {
    return this.#isGreeted;
  }

  /** The instance has answered, and the link is not lost. */
  get isConnected(): boolean {
    return this.#isGreeted && !this.isLost;
  }

  /** The link is gone for good: no request can be given to it. */
  get isLost(): boolean {
    return this.#isLost || this.#peer?.isOpen === false;
  }

  /**
   * Queues a request at the instance. When this resolves, the instance owns the request.
   * @throws {UnavailableError} the connection is lost, or no answer came: it may have queued the
   *   request
   * @throws {LlumnixError} the instance refused it
   */
  async generate(request: SubmittedRequest): Promise<void> {
    const peer = await this.#connecting;
    await peer.call("generate", splitPrompt(request), { timeoutMs: ANSWER_TIMEOUT_MS });
  }

  /** Stops a request, once connected; a `generate` of it that was sent before arrives before. */
  abort(requestId: RequestId, upToEpoch?: OwnershipEpoch): void {
    if (!this.#wasToldRecently(requestId)) this.#toldToDrop.add(requestId);
    const notice: AbortNotice = { requestIds: [requestId], upToEpoch };
    this.#connecting.then((peer) => peer.notify("abort", { data: notice }), () => {});
  }

  /** The instance sent output of a request that it does not own: tells it to drop the request. */
  refuse({ requestId, epoch = 0 }: RequestOutput): void {
    if (this.#wasToldRecently(requestId)) return;
    this.abort(requestId, epoch);
  }

  #wasToldRecently(requestId: RequestId): boolean {
    const nowMs = this.#config.clock.nowMs();
    if (nowMs - this.#toldSinceMs >= STALE_INTERVAL_MS) {
      this.#toldToDrop.clear();
      this.#toldSinceMs = nowMs;
    }
    return this.#toldToDrop.has(requestId);
  }

  /**
   * Returns those of these requests that the instance does not have.
   * @throws {UnavailableError} the instance does not answer
   */
  async missing(requestIds: readonly RequestId[]): Promise<readonly RequestId[]> {
    const peer = await this.#connecting;
    const request: MissingRequest = { requestIds };
    const { data } = await peer.call("missing", { data: request }, {
      timeoutMs: ANSWER_TIMEOUT_MS,
    });
    return data.requestIds;
  }

  /**
   * Takes a request that another API server had, if the instance holds it; null if not.
   * @throws {UnavailableError} the instance does not answer
   */
  async take(requestId: RequestId): Promise<HeldRequest | null> {
    const peer = await this.#connecting;
    const { data } = await peer.call("take", { data: { requestId } }, {
      timeoutMs: ANSWER_TIMEOUT_MS,
    });
    return data.held;
  }

  /** The instance has sent tokens of a step. */
  noteProgress(nowMs: number): void {
    if (nowMs === this.progressedMs) return;
    this.formerProgressedMs = this.progressedMs;
    this.progressedMs = nowMs;
  }

  /** Gives the link up; its requests are lost at once. Resolves when the connection is closed. */
  async close(reason: string): Promise<void> {
    this.#lose(reason);
    await this.#peer?.close();
  }

  async #connect(): Promise<Peer> {
    const { bus, frontendId, onOutputs } = this.#config;
    const peer = await bus.connect(this.registration.address, {
      notifications: { outputs: ({ data }) => onOutputs(this, data) },
      onClose: (_, reason) => this.#lose(reason),
    });
    this.#peer = peer;
    try {
      await peer.call("hello", { data: { frontendId } });
    } finally {
      if (this.#isLost) peer.close();
    }
    this.#isGreeted = true;
    return peer;
  }

  #lose(reason: string): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#lost.reject(new UnavailableError(reason));
    this.#peer?.close();
    this.#config.onLost(this, reason);
  }
}
