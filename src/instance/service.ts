import type { Message, Peer, Service } from "../bus/bus.ts";
import { RequestError } from "../core/errors.ts";
import type {
  GenerateRequest,
  InstanceInfo,
  OutputBatch,
  RequestId,
  RequestOutput,
} from "../core/messages.ts";
import type { AddressedOutput } from "./engine_core.ts";

/** What of an `Engine` is served. */
export interface ServedEngine {
  add(request: GenerateRequest): void;
  abort(requestId: RequestId): void;
  info(): InstanceInfo;
}

/** An API server that is connected. */
interface Frontend {
  readonly frontendId: string;
  readonly peer: Peer;
  /** Its requests that have not ended. */
  readonly requests: Set<RequestId>;
  /** Its outputs of the current step. */
  readonly outputs: RequestOutput[];
}

/**
 * An engine on the bus. API servers introduce themselves (call `hello` {frontendId}), queue requests
 * (call `generate`) and stop them (notification `abort` {requestIds}); each step's outputs go to an
 * API server in one notification `outputs`. What an API server has running ends with its connection.
 */
export class InstanceService {
  readonly #frontends = new Map<string, Frontend>();
  readonly #frontendOfPeer = new Map<Peer, Frontend>();
  #engine!: ServedEngine;

  /** What the instance offers on the bus. */
  readonly service: Service = {
    calls: {
      hello: ({ data }, peer) => this.#hello((data as { frontendId: string }).frontendId, peer),
      generate: ({ data }, peer) => this.#generate(data as GenerateRequest, peer),
      status: () => ({ data: this.#engine.info() }),
    },
    notifications: {
      abort: ({ data }) => {
        for (const id of (data as { requestIds: RequestId[] }).requestIds) this.#engine.abort(id);
      },
    },
    onClose: (peer) => {
      const frontend = this.#frontendOfPeer.get(peer);
      if (frontend) this.#drop(frontend);
    },
  };

  /** Gives it the engine, before it is bound to an address. */
  attach(engine: ServedEngine): void {
    this.#engine = engine;
  }

  /** Sends a step's outputs. Those of an API server that has left are dropped. */
  sendOutputs(outputs: readonly AddressedOutput[]): void {
    const receivers = new Set<Frontend>();
    for (const { frontendId, output } of outputs) {
      const frontend = this.#frontends.get(frontendId);
      if (!frontend) continue;
      frontend.outputs.push(output);
      if (output.finish) frontend.requests.delete(output.requestId);
      receivers.add(frontend);
    }
    for (const { peer, outputs } of receivers) {
      this.#notify(peer, outputs);
      outputs.length = 0;
    }
  }

  #hello(frontendId: string, peer: Peer): Message {
    const former = this.#frontends.get(frontendId);
    if (former) {
      // It came back before its old connection was seen to be gone.
      this.#drop(former);
      former.peer.close();
    }
    const frontend: Frontend = { frontendId, peer, requests: new Set(), outputs: [] };
    this.#frontends.set(frontendId, frontend);
    this.#frontendOfPeer.set(peer, frontend);
    return { data: null };
  }

  #generate(request: GenerateRequest, peer: Peer): Message {
    const frontend = this.#frontendOfPeer.get(peer);
    if (frontend?.frontendId !== request.frontendId) {
      throw new RequestError(`${peer.remote} has not introduced itself as ${request.frontendId}`);
    }
    this.#engine.add(request);
    frontend.requests.add(request.requestId);
    return { data: null };
  }

  #drop(frontend: Frontend): void {
    this.#frontendOfPeer.delete(frontend.peer);
    if (this.#frontends.get(frontend.frontendId) === frontend) {
      this.#frontends.delete(frontend.frontendId);
    }
    for (const requestId of frontend.requests) this.#engine.abort(requestId);
  }

  /** Outputs that do not fit in one message go one by one. */
  #notify(peer: Peer, outputs: readonly RequestOutput[]): void {
    try {
      peer.notify("outputs", { data: { outputs } satisfies OutputBatch });
    } catch (error) {
      if (outputs.length > 1) { for (const output of outputs) this.#notify(peer, [output]); }
      else this.#refuse(peer, outputs[0], error as Error);
    }
  }

  /** An output that fits in no message ends its request. */
  #refuse(peer: Peer, { requestId, index }: RequestOutput, error: Error): void {
    this.#engine.abort(requestId);
    this.#frontendOfPeer.get(peer)?.requests.delete(requestId);
    const message = `the output is too large to be sent: ${error.message}`;
    const finish = { reason: "error", error: { kind: "invalid_request", message } } as const;
    this.#notify(peer, [{ requestId, index, tokenIds: [], finish }]);
  }
}
