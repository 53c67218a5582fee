import type { CallHandler, Message, Peer, Service } from "../bus/bus.ts";
import { type Clock, realClock } from "../core/clock.ts";
import { RequestError, UnavailableError } from "../core/errors.ts";
import type { MigrationCallName } from "../core/protocol/calls.ts";
import type { ProcessReport } from "../core/protocol/examination.ts";
import type {
  AbortNotice,
  GenerateRequest,
  MissingReply,
  MissingRequest,
  OutputTiming,
  OwnershipEpoch,
  RequestId,
  RequestOutput,
  TakeReply,
  TakeRequest,
} from "../core/protocol/generate.ts";
import { joinPrompt } from "../core/protocol/prompt_payload.ts";
import type { InstanceInfo } from "../core/protocol/instance_info.ts";
import type { AddressedOutputs } from "./engine/pending_outputs.ts";
import type { Llumlet } from "./llumlet/llumlet.ts";
import { HeldRequests, type Taken } from "./held_requests.ts";
import { OutputHold } from "./output_hold.ts";

/** The part of an `Engine` that API servers use. */
export interface ServedEngine {
  add(request: GenerateRequest): void;
  abort(requestId: RequestId): void;
  has(requestId: RequestId): boolean;
  epochOf(requestId: RequestId): OwnershipEpoch | null;
  info(): InstanceInfo;
}

/** A connected API server. */
interface Frontend {
  readonly frontendId: string;
  readonly peer: Peer;
  /** Its requests that have not ended here, each with the epoch under which it arrived. */
  readonly requests: Map<RequestId, OwnershipEpoch>;
}

/**
 * The calls that API servers and other instances make to an instance.
 *
 * An API server introduces itself (call `hello`), queues requests (call `generate`), stops them
 * (notification `abort`) and asks for them (call `missing`). Each step's outputs go to an API
 * server in one notification `outputs`. When its connection ends, its requests here are aborted.
 * Another API server may then take those that asked to be held (call `take`), and resume them.
 *
 * With a llumlet, requests also move to and from other instances (calls `migrate_*`). Outputs of a
 * request whose API server is not connected here yet are held until it connects. Repeated messages
 * change nothing.
 */
export class InstanceService {
  readonly #frontends = new Map<string, Frontend>();
  readonly #frontendOfPeer = new Map<Peer, Frontend>();
  readonly #hold: OutputHold;
  readonly #held: HeldRequests;
  #engine!: ServedEngine;
  #llumlet: Llumlet | null = null;
  #report: (() => ProcessReport) | null = null;
  /** False while the instance drains: it refuses new requests, so that they go elsewhere. */
  isAccepting = true;

  /** The handlers to bind to an address of the bus. */
  readonly service: Service = {
    calls: {
      hello: ({ data }, peer) => this.#hello(data.frontendId, peer),
      generate: ({ data, payload }, peer) => this.#generate(joinPrompt(data, payload), peer),
      missing: ({ data }) => this.#missing(data),
      take: ({ data }, peer) => this.#take(data, peer),
      status: () => ({ data: this.#engine.info() }),
      examine: () => this.#examine(),
      migrate_out: this.#migrationCall("migrate_out"),
      migrate_in: this.#migrationCall("migrate_in"),
      migrate_reserve: this.#migrationCall("migrate_reserve"),
      migrate_commit: this.#migrationCall("migrate_commit"),
      migrate_settle: this.#migrationCall("migrate_settle"),
      migrate_blocks: this.#migrationCall("migrate_blocks"),
      migrate_pull: this.#migrationCall("migrate_pull"),
      migrate_backend: this.#migrationCall("migrate_backend"),
    },
    notifications: {
      abort: ({ data }) => this.#abort(data),
      migrate_cancel: (message, peer) =>
        this.#llumlet?.service.notifications.migrate_cancel?.(message, peer),
    },
    onClose: (peer) => {
      this.#llumlet?.closed(peer);
      const frontend = this.#frontendOfPeer.get(peer);
      if (frontend) this.#drop(frontend);
    },
  };

  readonly #clock: Clock;

  constructor(clock: Clock = realClock) {
    this.#clock = clock;
    this.#hold = new OutputHold(clock, (requestId) => this.#engine.abort(requestId));
    this.#held = new HeldRequests(clock);
  }

  /**
   * Sets the engine, before the service is bound to an address. Without a llumlet no request moves.
   * @param report what the instance answers to `examine`; null: it does not
   */
  attach(
    engine: ServedEngine,
    llumlet: Llumlet | null = null,
    report: (() => ProcessReport) | null = null,
  ): void {
    this.#engine = engine;
    this.#llumlet = llumlet;
    this.#report = report;
  }

  /** A request has moved here from another instance: its outputs follow. */
  expect(request: GenerateRequest): void {
    const { requestId, frontendId, epoch = 0 } = request;
    this.#held.begin(request);
    const frontend = this.#frontends.get(frontendId);
    if (frontend) frontend.requests.set(requestId, epoch);
    else this.#hold.expect(frontendId, requestId);
  }

  /** A request has moved to another instance, unless it has come back meanwhile. */
  forget(requestId: RequestId): void {
    if (this.#engine.has(requestId)) return;
    for (const frontend of this.#frontends.values()) frontend.requests.delete(requestId);
    this.#hold.forget(requestId);
    this.#held.forget(requestId);
  }

  /** Drops all held outputs. */
  close(): void {
    this.#hold.close();
    this.#held.close();
  }

  /** Sends a step's outputs. Outputs for an API server that disconnected are dropped. Reentrant. */
  sendOutputs(addressed: readonly AddressedOutputs[]): void {
    for (const { frontendId, outputs } of addressed) {
      if (this.#held.hasAny) { for (const output of outputs) this.#held.add(output); }
      const frontend = this.#frontends.get(frontendId);
      if (!frontend) {
        for (const output of outputs) this.#hold.add(frontendId, output);
        continue;
      }
      for (let i = 0; i < outputs.length; i++) {
        const output = outputs[i];
        if (output.finish) noteEnd(frontend, output);
        if (output.timing) outputs[i] = this.#stamped(output, output.timing);
      }
      this.#notify(frontend.peer, outputs);
    }
  }

  #stamped(output: RequestOutput, timing: OutputTiming): RequestOutput {
    return { ...output, timing: { ...timing, sentMs: this.#clock.nowMs() } };
  }

  #hello(frontendId: string, peer: Peer): Message<null> {
    const former = this.#frontends.get(frontendId);
    if (former?.peer === peer) return { data: null };
    if (former) {
      // It reconnected before this side noticed that the old connection had ended.
      this.#drop(former);
      former.peer.close();
    }
    const frontend: Frontend = { frontendId, peer, requests: new Map() };
    this.#frontends.set(frontendId, frontend);
    this.#frontendOfPeer.set(peer, frontend);
    const { requestIds, outputs } = this.#hold.take(frontendId);
    for (const requestId of requestIds) {
      frontend.requests.set(requestId, this.#engine.epochOf(requestId) ?? 0);
    }
    if (outputs.length > 0) this.#notify(peer, outputs);
    return { data: null };
  }

  #examine(): Message<ProcessReport> {
    if (this.#report !== null) return { data: this.#report() };
    throw new UnavailableError("this instance says nothing of its process");
  }

  #missing({ requestIds }: MissingRequest): Message<MissingReply> {
    const missing = requestIds.filter((requestId) => !this.#engine.has(requestId));
    return { data: { requestIds: missing } };
  }

  #take({ requestId }: TakeRequest, peer: Peer): Message<TakeReply> {
    if (!this.#frontendOfPeer.has(peer)) {
      throw new RequestError(`${peer.remote} has not introduced itself (call hello)`);
    }
    const taken = this.#held.take(requestId);
    if (taken === null) return { data: { held: null } };
    this.#endTaken(requestId, taken);
    const { tokenIds, finish, seed, arrivalMs, epoch } = taken;
    return { data: { held: { tokenIds, finish, seed, arrivalMs, epoch } } };
  }

  /** Stops a request that another API server has taken. The one that had it must not resume it. */
  #endTaken(requestId: RequestId, { frontendId, ownerEpoch, tokenIds, finish }: Taken): void {
    const owner = this.#frontends.get(frontendId);
    if (owner?.requests.delete(requestId) && !finish) {
      const message = "The client has resumed this stream over another connection.";
      const finish = { reason: "error", error: { kind: "conflict", message } } as const;
      const index = tokenIds.length;
      this.#notify(owner.peer, [{ requestId, index, tokenIds: [], epoch: ownerEpoch, finish }]);
    }
    this.#hold.forget(requestId);
    this.#engine.abort(requestId);
    this.#llumlet?.abortRequest(requestId);
  }

  #abort({ requestIds, upToEpoch }: AbortNotice): void {
    for (const requestId of requestIds) {
      const epoch = this.#engine.epochOf(requestId);
      if (upToEpoch !== undefined && epoch !== null && epoch > upToEpoch) continue;
      this.#engine.abort(requestId);
      // With an epoch, the abort is for a stale copy here: the request itself lives on elsewhere.
      if (upToEpoch === undefined) this.#llumlet?.abortRequest(requestId);
    }
  }

  #migrationCall<M extends MigrationCallName>(method: M): CallHandler<M> {
    return (message, peer) => {
      if (method === "migrate_in") this.#checkAccepting();
      const handler: CallHandler<M> | undefined = this.#llumlet?.service.calls[method];
      if (handler) return handler(message, peer);
      throw new UnavailableError("this instance does not migrate requests in this way");
    };
  }

  #generate(request: GenerateRequest, peer: Peer): Message<null> {
    this.#checkAccepting();
    const frontend = this.#frontendOfPeer.get(peer);
    if (frontend?.frontendId !== request.frontendId) {
      throw new RequestError(
        `${peer.remote} has not introduced itself as ${request.frontendId} (call hello)`,
      );
    }
    const { requestId, epoch = 0 } = request;
    const isRepeated = this.#engine.has(requestId) && frontend.requests.get(requestId) === epoch;
    if (isRepeated) return { data: null };
    // The API server resumes the request here, while an older copy of it is still on this instance.
    const formerEpoch = this.#engine.epochOf(requestId);
    if (formerEpoch !== null && formerEpoch < epoch) this.#engine.abort(requestId);
    this.#engine.add(request);
    this.#held.begin(request);
    frontend.requests.set(requestId, epoch);
    return { data: null };
  }

  #checkAccepting(): void {
    if (!this.isAccepting) {
      throw new UnavailableError("the instance drains and accepts no new requests");
    }
  }

  #drop(frontend: Frontend): void {
    this.#frontendOfPeer.delete(frontend.peer);
    if (this.#frontends.get(frontend.frontendId) === frontend) {
      this.#frontends.delete(frontend.frontendId);
    }
    for (const requestId of frontend.requests.keys()) this.#engine.abort(requestId);
  }

  /** Outputs that do not fit in one message are sent one by one. */
  #notify(peer: Peer, outputs: readonly RequestOutput[]): void {
    try {
      peer.notify("outputs", { data: { outputs } });
    } catch (error) {
      if (outputs.length > 1) { for (const output of outputs) this.#notify(peer, [output]); }
      else this.#refuse(peer, outputs[0], error as Error);
    }
  }

  /** An output that is too large for a message ends its request. */
  #refuse(peer: Peer, { requestId, index }: RequestOutput, error: Error): void {
    this.#engine.abort(requestId);
    this.#frontendOfPeer.get(peer)?.requests.delete(requestId);
    const message = `the output is too large to be sent: ${error.message}`;
    const finish = { reason: "error", error: { kind: "invalid_request", message } } as const;
    this.#notify(peer, [{ requestId, index, tokenIds: [], finish }]);
  }
}

/** Forgets a request that ended, unless it has come back under a higher epoch meanwhile. */
function noteEnd({ requests }: Frontend, { requestId, epoch = 0 }: RequestOutput): void {
  if (epoch >= (requests.get(requestId) ?? 0)) requests.delete(requestId);
}
