import type { Bus, Peer } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { UnavailableError } from "../core/errors.ts";
import type {
  AbortNotice,
  GenerateRequest,
  InstanceId,
  MissingRequest,
  OutputBatch,
  OwnershipEpoch,
  RequestId,
  RequestOutput,
} from "../core/protocol/generate.ts";
import type { InstanceRegistration } from "../core/protocol/membership.ts";
import type { ClientRequest } from "./client_request.ts";

/** How long an instance may take to queue a request or to say which it has. */
const ANSWER_TIMEOUT_MS = 5_000;
/** An instance is told at most so often to drop the same request. */
const STALE_INTERVAL_MS = 1_000;

export interface InstanceLinkConfig {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly registration: InstanceRegistration;
  readonly frontendId: string;
  readonly onOutputs: (link: InstanceLink, batch: OutputBatch) => void;
  /** Called once; what it has must go on elsewhere. */
  readonly onLost: (link: InstanceLink, reason: string) => void;
}

/** An API server's connection to one instance. It is not repaired: a new link takes its place. */
export class InstanceLink {
  /** What the instance has of this API server, as far as is known here. */
  readonly requests = new Set<ClientRequest>();
  /** When it last sent tokens, and when before that. */
  progressedMs = -Infinity;
  formerProgressedMs = -Infinity;
  readonly #config: InstanceLinkConfig;
  /** Rejects when the link is lost before it is there. */
  readonly #connecting: Promise<Peer>;
  readonly #lost = Promise.withResolvers<never>();
  #peer: Peer | null = null;
  #isGreeted = false;
  #isLost = false;
  /** The instance was to stop, and ends for no other reason. */
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

  /** It was there once. */
  get isGreeted(): boolean {
    return this.#isGreeted;
  }

  /** It was there a moment ago. */
  get isConnected(): boolean {
    return this.#isGreeted && !this.isLost;
  }

  /** No request can be given to it any more. */
  get isLost(): boolean {
    return this.#isLost || this.#peer?.isOpen === false;
  }

  /**
   * Queues a request at the instance, which owns it when this resolves.
   * @throws {UnavailableError} the connection is lost, or no answer came: it may have the request
   * @throws {LlumnixError} the instance refused it
   */
  async generate(request: GenerateRequest): Promise<void> {
    const peer = await this.#connecting;
    await peer.call("generate", { data: request }, { timeoutMs: ANSWER_TIMEOUT_MS });
  }

  /** Stops a request, now or when the connection is there; behind a `generate` of it. */
  abort(requestId: RequestId, upToEpoch?: OwnershipEpoch): void {
    if (!this.#wasToldLately(requestId)) this.#toldToDrop.add(requestId);
    const notice: AbortNotice = { requestIds: [requestId], upToEpoch };
    this.#connecting.then((peer) => peer.notify("abort", { data: notice }), () => {});
  }

  /** The instance has sent output of a request that it should not have. */
  refuse({ requestId, epoch = 0 }: RequestOutput): void {
    if (this.#wasToldLately(requestId)) return;
    this.abort(requestId, epoch);
  }

  #wasToldLately(requestId: RequestId): boolean {
    const nowMs = this.#config.clock.nowMs();
    if (nowMs - this.#toldSinceMs >= STALE_INTERVAL_MS) {
      this.#toldToDrop.clear();
      this.#toldSinceMs = nowMs;
    }
    return this.#toldToDrop.has(requestId);
  }

  /**
   * Which of these requests the instance does not have.
   * @throws {UnavailableError} no answer
   */
  async missing(requestIds: readonly RequestId[]): Promise<readonly RequestId[]> {
    const peer = await this.#connecting;
    const request: MissingRequest = { requestIds };
    const { data } = await peer.call("missing", { data: request }, {
      timeoutMs: ANSWER_TIMEOUT_MS,
    });
    return data.requestIds;
  }

  /** It has sent tokens of a step. */
  noteProgress(nowMs: number): void {
    if (nowMs === this.progressedMs) return;
    this.formerProgressedMs = this.progressedMs;
    this.progressedMs = nowMs;
  }

  /** Gives the connection up: what it has is lost at once. Resolves when it is closed. */
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
