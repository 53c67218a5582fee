import type { Bus, Peer } from "../bus/bus.ts";
import type {
  GenerateRequest,
  InstanceRegistration,
  OutputBatch,
  RequestId,
} from "../core/messages.ts";
import type { ClientRequest } from "./client_request.ts";

export interface InstanceLinkConfig {
  readonly bus: Bus;
  readonly registration: InstanceRegistration;
  readonly frontendId: string;
  readonly onOutputs: (batch: OutputBatch) => void;
}

/** An API server's connection to one instance. It is not repaired: a new link takes its place. */
export class InstanceLink {
  readonly #config: InstanceLinkConfig;
  readonly #connecting: Promise<Peer>;
  readonly #requests = new Set<ClientRequest>();
  #peer: Peer | null = null;
  #lostReason: string | null = null;

  constructor(config: InstanceLinkConfig) {
    this.#config = config;
    this.#connecting = this.#connect();
    this.#connecting.catch((error) => this.#lose(error.message));
  }

  /** No request can be given to it any more; those it has end with an error. */
  get isLost(): boolean {
    return this.#lostReason !== null || this.#peer?.isOpen === false;
  }

  /**
   * Queues a request at the instance, which owns it when this resolves.
   * @throws {UnavailableError} the connection is lost: the instance does not have the request, or
   *   drops it as it notices
   * @throws {LlumnixError} the instance refused it
   */
  async generate(entry: ClientRequest, request: GenerateRequest): Promise<void> {
    const peer = await this.#connecting;
    if (entry.isAborted) return;
    try {
      await peer.call("generate", { data: request });
    } catch (error) {
      this.abort(request.requestId); // it may have been queued although no answer came
      throw error;
    }
    if (entry.isAborted) return;
    this.#requests.add(entry);
    if (this.#lostReason !== null) this.#fail(entry);
  }

  /** Stops a request whose `generate` was sent, now or when the connection is there. */
  abort(requestId: RequestId): void {
    const message = { data: { requestIds: [requestId] } };
    this.#connecting.then((peer) => peer.notify("abort", message), () => {});
  }

  /** The request has ended. */
  forget(entry: ClientRequest): void {
    this.#requests.delete(entry);
  }

  async close(): Promise<void> {
    await this.#connecting.then((peer) => peer.close(), () => {});
  }

  async #connect(): Promise<Peer> {
    const { bus, registration, frontendId, onOutputs } = this.#config;
    const peer = await bus.connect(registration.address, {
      notifications: { outputs: ({ data }) => onOutputs(data as OutputBatch) },
      onClose: (_, reason) => this.#lose(reason),
    });
    try {
      await peer.call("hello", { data: { frontendId } });
    } catch (error) {
      await peer.close();
      throw error;
    }
    this.#peer = peer;
    return peer;
  }

  #lose(reason: string): void {
    if (this.#lostReason !== null) return;
    this.#lostReason = reason;
    for (const entry of this.#requests) this.#fail(entry);
  }

  #fail(entry: ClientRequest): void {
    const { instanceId } = this.#config.registration;
    const message = `${instanceId} was lost while it ran the request (${this.#lostReason})`;
    entry.fail({ kind: "unavailable", message });
  }
}
