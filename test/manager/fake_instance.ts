import type { Listener, Peer } from "../../src/bus/bus.ts";
import { sleep } from "../../src/core/clock.ts";
import { LlumnixError, RequestError, UnavailableError } from "../../src/core/errors.ts";
import type {
  AbortNotice,
  GenerateRequest,
  InstanceId,
  RequestId,
  RequestOutput,
  TakeReply,
} from "../../src/core/protocol/generate.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import type { JoinRequest } from "../../src/core/protocol/membership.ts";
import type { MigrateOutOrder, MigrationReport } from "../../src/core/protocol/migration.ts";
import type { SimNode } from "../../src/sim/network/sim_bus.ts";
import { idleInfo, registrationOf } from "./support.ts";

const STEP_MS = 20;
const REJOIN_MS = 200;
/** Longer than the time between two rounds of orders. */
const TRANSFER_MS = 250;
const BLOCKS = 100;
/** What came later waits. */
const MAX_RUNNING = 100;

/** The token that every instance produces at a position of a request. */
export function tokenAt(requestId: RequestId, index: number): number {
  let hash = index;
  for (let i = 0; i < requestId.length; i++) hash = hash * 31 + requestId.charCodeAt(i) | 0;
  return hash >>> 1;
}

interface HeldRequest {
  request: GenerateRequest;
  numTokens: number;
  epoch: number;
  isMoving: boolean;
}

/**
 * An instance as the manager and API servers see it, without engine and blocks: a token of every
 * request each step, and migrations that copy nothing but are as open to faults as real ones.
 */
export class FakeInstance {
  readonly requests = new Map<RequestId, HeldRequest>();
  /** Orders that came while another was under way. */
  numOverlappingOrders = 0;
  readonly orders: MigrateOutOrder[] = [];
  /** What it holds of requests for other API servers, and what it was asked for. */
  readonly held = new Map<RequestId, TakeReply["held"]>();
  readonly takes: RequestId[] = [];
  /** What it reports in place of the truth. */
  info: Partial<InstanceInfo> = {};
  numGenerates = 0;
  /** Whether it crashes as it computes this token, or as it gets the request (-1), and how. */
  isDeadly: (requestId: RequestId, index: number) => boolean = () => false;
  onCrash: () => void = () => {};
  startedBy: JoinRequest["startedBy"];
  incarnation = crypto.randomUUID() as string;
  model = "test";
  /** By notification; null: as often as it was told when it joined. */
  toldIntervalMs: number | null = null;
  hostName: string | undefined = undefined;
  /** Between its join and its registration. */
  loadMs = 0;
  /** Between the end of its connections and that of its process. */
  exitMs = 0;
  readonly #frontends = new Map<string, Peer>();
  readonly #peers = new Map<string, Promise<Peer>>();
  #manager: Peer | null = null;
  #listener: Listener | null = null;
  #isServing = false;
  #hasLeft = false;
  #isMigrating = false;

  constructor(
    readonly node: SimNode,
    readonly instanceId: InstanceId,
    private readonly managerAddress: string,
    private readonly onStop: () => void,
  ) {}

  async start(): Promise<void> {
    await this.#join();
    if (this.loadMs > 0) await sleep(this.node.clock, this.loadMs);
    this.#listener = await this.node.bus.listen(`inproc:${this.instanceId}`, {
      calls: {
        hello: ({ data }, peer) => {
          this.#frontends.set(data.frontendId, peer);
          return { data: null };
        },
        generate: ({ data }) => {
          this.#generate(data);
          return { data: null };
        },
        missing: ({ data }) => {
          const { requestIds } = data;
          return { data: { requestIds: requestIds.filter((id) => !this.requests.has(id)) } };
        },
        take: ({ data }) => {
          this.takes.push(data.requestId);
          return { data: { held: this.held.get(data.requestId) ?? null } };
        },
        migrate_commit: ({ data }) => {
          this.#take(data.request);
          return { data: null };
        },
      },
      notifications: { abort: ({ data }) => this.#abort(data) },
      onClose: (peer) => this.#dropFrontend(peer),
    });
    this.#isServing = true;
    await this.#register();
    this.#step();
  }

  /** Its process was asked to stop, and its drain takes no time. */
  async leave(): Promise<void> {
    await this.#manager!.call("drain", { data: null });
    this.#isServing = false;
    this.#hasLeft = true;
    await this.#listener!.close();
    await this.#manager!.close();
    if (this.exitMs < Infinity) this.node.clock.after(this.exitMs, () => this.onStop());
  }

  async #join(): Promise<void> {
    const manager = await this.node.bus.connect(this.managerAddress, {
      calls: {
        migrate_out: async ({ data }) => ({
          data: await this.#migrateOut(data),
        }),
        handover: () => ({ data: null }), // it rejoins in any case
      },
      notifications: {
        shutdown: () => this.onStop(),
        report_interval: ({ data }) => void (this.toldIntervalMs = data.infoIntervalMs),
      },
      onClose: (peer) => {
        if (this.#manager === peer && this.#isServing) this.#rejoin();
      },
    });
    this.#manager = manager;
    const { instanceId, incarnation, startedBy } = this;
    const data: JoinRequest = {
      instanceId,
      incarnation,
      isRunning: this.#isServing,
      startedBy,
    };
    await manager.call("join", { data });
  }

  async #register(): Promise<void> {
    const { model, hostName } = this;
    const known = registrationOf(this.instanceId, this.#listener!.address);
    const registration = { ...known, model, hostName };
    await this.#manager!.call("register", { data: registration });
    this.#report([]);
  }

  async #rejoin(): Promise<void> {
    for (;;) {
      try {
        await this.#join();
        return await this.#register();
      } catch (error) {
        if (error instanceof LlumnixError && error.kind === "not_found") return this.onStop();
        const failed = this.#manager;
        this.#manager = null;
        failed?.close();
        await sleep(this.node.clock, REJOIN_MS);
      }
    }
  }

  #generate(request: GenerateRequest): void {
    this.numGenerates++;
    if (this.isDeadly(request.requestId, -1)) this.onCrash();
    const epoch = request.epoch ?? 0;
    const held = this.requests.get(request.requestId);
    if (held && held.epoch >= epoch) {
      throw new RequestError(`${request.requestId} is being served already`);
    }
    const numTokens = request.outputTokenIds.length;
    this.requests.set(request.requestId, { request, numTokens, epoch, isMoving: false });
  }

  #take(request: GenerateRequest): void {
    if (!this.#frontends.has(request.frontendId)) {
      throw new UnavailableError("no way to the client");
    }
    this.#generate(request);
    this.#send([{
      requestId: request.requestId,
      index: request.outputTokenIds.length,
      tokenIds: [],
      epoch: request.epoch,
    }], request.frontendId);
  }

  #abort({ requestIds, upToEpoch = Infinity }: AbortNotice): void {
    for (const requestId of requestIds) {
      const held = this.requests.get(requestId);
      if (held && held.epoch <= upToEpoch) this.requests.delete(requestId);
    }
  }

  #dropFrontend(peer: Peer): void {
    for (const [frontendId, other] of this.#frontends) {
      if (other !== peer) continue;
      this.#frontends.delete(frontendId);
      for (const [requestId, { request }] of this.requests) {
        if (request.frontendId === frontendId) this.requests.delete(requestId);
      }
    }
  }

  #step(): void {
    if (this.#hasLeft) return;
    const outputs = new Map<string, RequestOutput[]>();
    const received = [...this.requests.keys()];
    const running = [...this.requests].slice(0, MAX_RUNNING);
    for (const [requestId, held] of running) {
      if (held.isMoving) continue;
      if (this.isDeadly(requestId, held.numTokens)) return this.onCrash();
      const { frontendId, params: { maxTokens } } = held.request;
      const index = held.numTokens++;
      const isLast = held.numTokens >= maxTokens;
      const output: RequestOutput = {
        requestId,
        index,
        tokenIds: [tokenAt(requestId, index)],
        epoch: held.epoch,
        ...(isLast && { finish: { reason: "length" } }),
      };
      if (isLast) this.requests.delete(requestId);
      outputs.set(frontendId, [...outputs.get(frontendId) ?? [], output]);
    }
    for (const [frontendId, list] of outputs) this.#send(list, frontendId);
    this.#report(received);
    this.node.clock.after(STEP_MS, () => this.#step());
  }

  #send(outputs: readonly RequestOutput[], frontendId: string): void {
    this.#frontends.get(frontendId)?.notify("outputs", { data: { outputs } });
  }

  #report(receivedRequestIds: readonly RequestId[]): void {
    const runningRequests = this.requests.size;
    const usedBlocks = Math.min(BLOCKS, 10 * runningRequests);
    const info = idleInfo(this.instanceId, {
      timestampMs: this.node.clock.nowMs(),
      freeBlocks: BLOCKS - usedBlocks,
      usedBlocks,
      watermarkBlocks: 1,
      runningRequests,
      lastRunningBlocks: runningRequests > 0 ? 10 : 0,
      receivedRequestIds,
      ...this.info,
    });
    this.#manager?.notify("info", { data: info });
  }

  async #migrateOut(order: MigrateOutOrder): Promise<MigrationReport> {
    if (this.#isMigrating) this.numOverlappingOrders++;
    this.orders.push(order);
    this.#isMigrating = true;
    try {
      return await this.#moveOne(order);
    } finally {
      this.#isMigrating = false;
    }
  }

  async #moveOne({ migrationId, destination }: MigrateOutOrder): Promise<MigrationReport> {
    const held = [...this.requests.values()].find(({ isMoving }) => !isMoving);
    const report: MigrationReport = {
      migrationId,
      sourceId: this.instanceId,
      destinationId: destination.instanceId,
      requestId: held?.request.requestId ?? null,
      outcome: "committed",
      phase: "commit",
      reason: "",
      lengthTokens: held?.numTokens ?? 0,
      stages: 1,
      blocks: 10,
      transfer: { bytes: 1000, descriptors: 1, rounds: 1, transferMs: 1 },
      downtimeMs: 1,
      totalMs: 1,
    };
    if (!held) return { ...report, outcome: "nothing" };
    const { request, numTokens, epoch } = held;
    const { requestId } = request;
    held.isMoving = true;
    const outputTokenIds = Array.from({ length: numTokens }, (_, i) => tokenAt(requestId, i));
    try {
      const peer = await this.#peerAt(destination.address);
      await sleep(this.node.clock, TRANSFER_MS);
      const moved: GenerateRequest = { ...request, outputTokenIds, epoch: epoch + 1 };
      const commit = { migrationId: report.migrationId, request: moved };
      await peer.call("migrate_commit", { data: commit }, { timeoutMs: 2_000 });
      if (this.requests.get(requestId) === held) this.requests.delete(requestId);
      return report;
    } catch (error) {
      // The destination may have it all the same: the one with the higher epoch is right.
      held.isMoving = false;
      held.epoch = epoch + 2;
      return { ...report, outcome: "aborted_destination", reason: (error as Error).message };
    }
  }

  #peerAt(address: string): Promise<Peer> {
    const known = this.#peers.get(address);
    if (known) return known;
    const onClose = () => this.#peers.delete(address);
    const connecting = this.node.bus.connect(address, { onClose }, { timeoutMs: 2_000 });
    connecting.catch(onClose);
    this.#peers.set(address, connecting);
    return connecting;
  }
}
