import { sleep } from "../../core/clock.ts";
import { LlumnixError } from "../../core/errors.ts";
import type {
  GenerateRequest,
  HeldRequest,
  RequestId,
  RequestOutput,
} from "../../core/protocol/generate.ts";
import { Random } from "../../core/random.ts";
import { applyAction } from "./apply_action.ts";
import { type LedgerEntry, RequestLedger } from "./request_ledger.ts";
import {
  isCalm,
  isFault,
  isMild,
  poisonMs,
  type Scenario,
  type ScenarioRequest,
  stalledMs,
} from "./scenario.ts";
import { type SimClient, SimCluster } from "./sim_cluster.ts";
import { longestStepMs, type SimInstance } from "./sim_instance.ts";
import { POISON_SEED } from "./timed_model.ts";

/** Virtual time after the last action or request within which all requests must end. */
const PROGRESS_BOUND_MS = 120_000;
/** Virtual time after the last request within which every account must be back at zero. */
const SETTLE_BOUND_MS = 60_000;
/** Virtual time after the stop in which timers may still ring, then as long again in which none may. */
const QUIET_AFTER_MS = 20_000;
/** Virtual time that a request may be on more than one instance, if no message is held up. */
const OWNERSHIP_BOUND_MS = 30_000;
/**
 * In a calm scenario an abort must take effect within this many longest steps and messages: so soon that
 * it cannot be confused with a request that ends by itself.
 */
const ABORT_BOUND = { steps: 3, messages: 60 };
/** Most events of one run; more means a busy loop. */
const MAX_EVENTS = 300_000;
/** Invariants are checked once in this many events. */
const CHECK_INTERVAL_EVENTS = 24;
/** Most violations that are reported of one run. */
const MAX_VIOLATIONS = 10;
/** How long instances hold a request; a client comes back within less. */
const HOLD_MS = 10_000;
const RETURN_MS = 1_000;
/** Attempts of a client to go on with its request, longer than the hold, and the pause between two. */
const TAKE_ATTEMPTS = 30;
const TAKE_PAUSE_MS = 500;
/** Share of the clients that come back, when their API server has died. */
const RETURN_SHARE = 0.7;
/** Newest tokens that may not have reached a client when its API server died. */
const MAX_LOST_TOKENS = 3;

export interface RunOptions {
  readonly isTraced?: boolean;
}

export interface ScenarioResult {
  readonly scenario: Scenario;
  /** What must not happen and did; empty if the run is fine. */
  readonly violations: readonly string[];
  /** Empty without `isTraced`. */
  readonly trace: string;
  readonly statistics: RunStatistics;
}

export interface RunStatistics {
  events: number;
  virtualMs: number;
  finished: number;
  failed: number;
  aborted: number;
  tokens: number;
  committedMigrations: number;
  droppedMigrations: number;
  lostInstances: number;
  /** Requests that went on at another API server after theirs had died. */
  resumedElsewhere: number;
}

/** Runs a scenario on the production code, and checks the invariants all the time. */
export function runScenario(scenario: Scenario, options: RunOptions = {}): Promise<ScenarioResult> {
  return new ScenarioRun(scenario, options.isTraced ?? false).run();
}

class ScenarioRun {
  readonly #scenario: Scenario;
  readonly #cluster: SimCluster;
  readonly #ledger: RequestLedger;
  readonly #violations: string[] = [];
  /** When a request was first seen on too many instances. */
  readonly #tooManySinceMs = new Map<RequestId, number>();
  /** Virtual time that a request may be on too many instances. */
  readonly #ownershipBoundMs: number;
  readonly #abortBoundMs: number;
  /** No faults: at every moment it is certain where a request is. */
  readonly #isCalm: boolean;
  /** So few faults that only poison requests may fail. */
  readonly #isMild: boolean;
  /** Decides which clients come back; not the cluster's, whose draws stay those of the seed. */
  readonly #returns: Random;
  #startedMs = 0;
  #events = 0;
  #numResumedElsewhere = 0;
  #numFaults = 0;

  constructor(scenario: Scenario, isTraced: boolean) {
    this.#scenario = scenario;
    this.#returns = new Random(scenario.seed + 2 ** 41);
    this.#ownershipBoundMs = OWNERSHIP_BOUND_MS + stalledMs(scenario);
    this.#isCalm = isCalm(scenario);
    this.#abortBoundMs = this.#isCalm ? abortBoundMs(scenario) : this.#ownershipBoundMs;
    this.#isMild = isMild(scenario);
    const violate = (what: string) => this.#violate(what);
    this.#cluster = new SimCluster(scenario, isTraced, violate);
    this.#ledger = new RequestLedger(scenario.engine, violate, () => this.#mayFail());
  }

  async run(): Promise<ScenarioResult> {
    const onRejection = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      const { reason } = event;
      this.#violate(`unhandled rejection: ${reason instanceof Error ? reason.stack : reason}`);
    };
    globalThis.addEventListener("unhandledrejection", onRejection);
    try {
      await this.#runAll();
    } catch (error) {
      this.#violate(`the run broke off: ${error instanceof Error ? error.stack : error}`);
    } finally {
      globalThis.removeEventListener("unhandledrejection", onRejection);
    }
    return {
      scenario: this.#scenario,
      violations: this.#violations,
      trace: this.#cluster.trace.toString(),
      statistics: this.#statistics(),
    };
  }

  async #runAll(): Promise<void> {
    if (!await this.#finish("the start", this.#cluster.start(), PROGRESS_BOUND_MS)) return;
    this.#schedule();
    const { requests, actions } = this.#scenario;
    let lastMs = 0;
    for (const action of actions) {
      lastMs = Math.max(lastMs, action.atMs + ("forMs" in action ? action.forMs : 0));
    }
    for (const { atMs } of requests) lastMs = Math.max(lastMs, atMs);
    const isDone = () => this.#elapsedSinceStartMs() >= lastMs && this.#ledger.numOpen === 0;
    await this.#advance(isDone, lastMs + PROGRESS_BOUND_MS + poisonMs(this.#scenario));
    for (const { state, request, tokenIds } of this.#ledger.entries.values()) {
      if (state === "submitting" || state === "running") {
        this.#violate(`${request.requestId} does not end: ${state}, ${tokenIds.length} tokens`);
      }
    }
    // The cluster has time to put right what is still wrong.
    let leftovers: string[] = [];
    const isClean = () => (leftovers = this.#leftovers()).length === 0;
    await this.#advance(isClean, SETTLE_BOUND_MS, true);
    for (const leftover of leftovers) this.#violate(leftover);
    await this.#finish("the stop", this.#cluster.stop(), PROGRESS_BOUND_MS);
    await this.#checkSilence();
  }

  #elapsedSinceStartMs(): number {
    return this.#cluster.elapsedMs - this.#startedMs;
  }

  #schedule(): void {
    this.#startedMs = this.#cluster.elapsedMs;
    const { clock } = this.#cluster;
    this.#scenario.requests.forEach((request, i) => {
      clock.after(request.atMs, () => this.#submit(`r${i}`, request));
    });
    for (const action of this.#scenario.actions) {
      clock.after(action.atMs, () => {
        if (isFault(action)) this.#numFaults++;
        applyAction(this.#cluster, action);
        if (action.type === "crash_client") this.#returnToOthers();
      });
    }
  }

  /** Clients of an API server that has died come back to one that lives. */
  #returnToOthers(): void {
    const { aliveClients, clients, clock } = this.#cluster;
    const isOfDead = ({ request: { frontendId } }: LedgerEntry) =>
      !aliveClients.some(({ client }) => client.frontendId === frontendId);
    if (aliveClients.length === clients.length) return;
    for (const entry of this.#ledger.entries.values()) {
      const { state, request } = entry;
      const isUnderWay = state === "running" || state === "submitting";
      // A poison request would crash as many instances again.
      const returns = request.params.seed !== POISON_SEED && this.#returns.uniform() < RETURN_SHARE;
      if (!isUnderWay || !isOfDead(entry) || !returns) continue;
      const sim = aliveClients[this.#returns.below(aliveClients.length)];
      this.#ledger.resume(entry, sim.client.frontendId, this.#returns.below(MAX_LOST_TOKENS + 1));
      const wasAccepted = state === "running";
      clock.after(RETURN_MS * this.#returns.uniform(), () => this.#resume(entry, sim, wasAccepted));
    }
  }

  async #resume(entry: LedgerEntry, { client, node }: SimClient, wasAccepted: boolean) {
    const { trace } = this.#cluster;
    const { request, tokenIds } = entry;
    if (node.clock.isStopped || entry.state !== "submitting") return;
    trace.add(node.name, () => `resumes ${request.requestId} after ${tokenIds.length} tokens`);
    const deliver = (output: RequestOutput) => {
      trace.add(node.name, () => `delivers ${JSON.stringify(output)}`);
      this.#ledger.output(entry, output);
    };
    try {
      const { tokenIds: all, finish, seed, arrivalMs, epoch } = await takePatiently(
        { client, node },
        request.requestId,
        tokenIds.length,
      );
      this.#numResumedElsewhere++;
      const index = tokenIds.length;
      deliver({ requestId: request.requestId, index, tokenIds: all.slice(index), finish });
      if (finish) return;
      const params = { ...request.params, seed };
      await client.submit({ ...request, outputTokenIds: all, params, arrivalMs, epoch }, deliver);
      this.#ledger.accepted(entry);
    } catch (error) {
      trace.add(node.name, () => `could not resume ${request.requestId}: ${error}`);
      if (node.clock.isStopped || entry.state !== "submitting") return;
      const mayBeLost = !wasAccepted || !this.#isHoldCertain;
      const isLost = error instanceof LlumnixError && error.kind === "not_found";
      if (isLost && mayBeLost) entry.state = "gone";
      else this.#ledger.refused(entry, error);
    }
  }

  /** The death of an API server is the only thing that happens: every request that an instance took is held. */
  get #isHoldCertain(): boolean {
    const { actions, scaling, network, requests } = this.#scenario;
    return actions.length === 1 && !scaling.enableScaling && network.repeatChance === 0 &&
      network.overtakeChance === 0 && !requests.some(({ isPoison }) => isPoison);
  }

  #submit(requestId: string, planned: ScenarioRequest): void {
    const { trace, clients, clock } = this.#cluster;
    const { client, node, isAlive } = clients[planned.client];
    const { promptTokenIds, params, priority, abortAtMs, atMs } = planned;
    const request: GenerateRequest = {
      requestId,
      frontendId: client.frontendId,
      promptTokenIds,
      outputTokenIds: [],
      params,
      priority,
      arrivalMs: node.clock.nowMs(),
      holdMs: HOLD_MS,
    };
    const entry = this.#ledger.add(request);
    if (!isAlive) {
      entry.state = "gone";
      return;
    }
    trace.add(node.name, () => `submits ${requestId}: ${promptTokenIds.length} tokens`);
    // Promises of an API server that has died may still settle, when another one has the request.
    const isOwn = () => entry.request.frontendId === client.frontendId;
    client.submit(request, (output) => {
      trace.add(node.name, () => `delivers ${JSON.stringify(output)}`);
      this.#ledger.output(entry, output);
    }).then(
      () => isOwn() && this.#ledger.accepted(entry),
      (error) => {
        trace.add(node.name, () => `could not submit ${requestId}: ${error}`);
        if (isOwn()) this.#ledger.refused(entry, error);
      },
    );
    if (abortAtMs !== null) clock.after(abortAtMs - atMs, () => this.#abort(entry, planned));
  }

  #abort(entry: LedgerEntry, planned: ScenarioRequest): void {
    const { client, node } = this.#cluster.clients[planned.client];
    if (node.clock.isStopped || entry.state === "ended") return;
    const { requestId } = entry.request;
    this.#cluster.trace.add(node.name, () => `aborts ${requestId}`);
    entry.state = "aborted";
    client.abort(requestId);
  }

  /** Lets virtual time pass until `isDone`, for at most `boundMs`. */
  async #advance(isDone: () => boolean, boundMs: number, isPolled = false): Promise<boolean> {
    const { clock } = this.#cluster;
    let isLate = false;
    clock.after(boundMs, () => isLate = true);
    let isDoneNow = false;
    await clock.runUntil(() => {
      this.#events++;
      const isCheckDue = this.#events % CHECK_INTERVAL_EVENTS === 0;
      if (isCheckDue) this.#checkRunning();
      if (!isPolled || isCheckDue) isDoneNow = isDone();
      return isDoneNow || isLate || this.#events > MAX_EVENTS ||
        this.#violations.length >= MAX_VIOLATIONS;
    });
    if (this.#events > MAX_EVENTS) this.#violate(`more than ${MAX_EVENTS} events`);
    return isDoneNow;
  }

  async #finish(what: string, promise: Promise<unknown>, boundMs: number): Promise<boolean> {
    let isDone = false;
    promise.then(() => isDone = true, (error) => this.#violate(`${what} failed: ${error.stack}`));
    const hasEnded = await this.#advance(() => isDone, boundMs);
    if (!hasEnded) this.#violate(`${what} did not end in ${boundMs} ms`);
    return hasEnded;
  }

  /** Checks the invariants that hold at every moment. */
  #checkRunning(): void {
    this.#noteGone();
    const alive = this.#cluster.aliveInstances;
    for (const sim of alive) this.#checkBlocks(sim);
    this.#checkOwners(alive);
  }

  #checkBlocks({ instance: { engine }, name }: SimInstance): void {
    try {
      engine?.check(this.#cluster.fabric.inFlight(name));
    } catch (error) {
      this.#violate(`${name}: ${(error as Error).message}`);
    }
  }

  /** A request may be on two instances only until the messages between them have arrived. */
  #checkOwners(alive: readonly SimInstance[]): void {
    const nowMs = this.#cluster.elapsedMs;
    for (const [requestId, { state }] of this.#ledger.entries) {
      const owners = alive.filter(({ instance }) => instance.engine?.has(requestId));
      const most = state === "running" || state === "submitting" ? 1 : 0;
      if (this.#isCalm && owners.length > 1) this.#checkServedOnce(requestId, owners);
      if (owners.length <= most) this.#tooManySinceMs.delete(requestId);
      else if (!this.#tooManySinceMs.has(requestId)) this.#tooManySinceMs.set(requestId, nowMs);
      else if (
        nowMs - this.#tooManySinceMs.get(requestId)! >
          (state === "aborted" ? this.#abortBoundMs : this.#ownershipBoundMs)
      ) {
        const names = owners.map(({ name }) => name).join(" and ");
        this.#violate(`${requestId}, which is ${state}, stays on ${names}`);
      }
    }
  }

  /**
   * A request that moves is on two instances, but suspended on one of them. An instance whose time to
   * drain is over does not count: it may hear of its stop later than the client, which resumes the
   * request elsewhere at once.
   */
  #checkServedOnce(requestId: RequestId, owners: readonly SimInstance[]): void {
    const serving = owners.filter((sim) => {
      if (!this.#cluster.isServing(sim)) return false;
      const { running, waiting } = sim.instance.engine!.queues();
      return [...running, ...waiting].some((other) => other.requestId === requestId);
    });
    if (serving.length < 2) return;
    this.#violate(`${requestId} is served by ${serving.map(({ name }) => name).join(" and ")}`);
  }

  /** Marks the requests whose API server has died. */
  #noteGone(): void {
    if (this.#cluster.aliveClients.length === this.#cluster.clients.length) return;
    for (const entry of this.#ledger.entries.values()) {
      const sim = this.#cluster.clients.find(({ client }) =>
        client.frontendId === entry.request.frontendId
      );
      if (!sim!.isAlive && entry.state !== "ended") entry.state = "gone";
    }
  }

  /** What remains although all requests have ended: blocks, accounts, migrations, instances. */
  #leftovers(): string[] {
    const leftovers: string[] = [];
    const note = (count: number, what: string) => {
      if (count > 0) leftovers.push(`${count} ${what}`);
    };
    const { aliveInstances, servingIds } = this.#cluster;
    for (const { instance, name } of aliveInstances) {
      if (!instance.engine) continue;
      const info = instance.engine.info();
      note(info.totalBlocks - info.freeBlocks, `blocks were not freed on ${name}`);
      const { runningRequests, waitingRequests, killedRequests } = info;
      note(runningRequests + waitingRequests + killedRequests, `requests are left on ${name}`);
      note(Number(instance.isMigrating), `migration does not end on ${name}`);
    }
    for (const { client, node } of this.#cluster.aliveClients) {
      note(client.numRequests, `requests are left in the account of ${node.name}`);
    }
    const { manager } = this.#cluster;
    note(manager?.numPendingDispatches ?? 0, "dispatches are left in the account");
    note(
      Math.abs(aliveInstances.length - servingIds.length),
      "instances run and do not serve, or serve and do not run",
    );
    leftovers.push(...this.#cluster.groupWatch?.leftovers(servingIds, aliveInstances) ?? []);
    const unready = this.#cluster.aliveClients.filter(({ client }) => !client.isReady());
    note(unready.length, "API servers are not ready");
    return leftovers;
  }

  /** Checks that nothing happens in processes that have stopped. */
  async #checkSilence(): Promise<void> {
    const { network, clock } = this.#cluster;
    const pass = async () => {
      let isOver = false;
      clock.after(QUIET_AFTER_MS, () => isOver = true);
      await clock.runUntil(() => isOver);
    };
    await pass();
    const before = network.numRings;
    await pass();
    if (network.numRings > before) {
      this.#violate(`${network.numRings - before} timers ring after everything was closed`);
    }
    if (this.#numFaults === 0 && network.numConnections > 0) {
      this.#violate(`${network.numConnections} connections are open after everything was closed`);
    }
  }

  #mayFail(): boolean {
    return this.#numFaults > 0 && !this.#isMild;
  }

  #violate(what: string): void {
    if (this.#violations.length >= MAX_VIOLATIONS || this.#violations.includes(what)) return;
    this.#cluster.trace.add("!!!", () => what);
    this.#violations.push(what);
  }

  #statistics(): RunStatistics {
    const statistics: RunStatistics = {
      events: this.#events,
      virtualMs: this.#cluster.elapsedMs,
      finished: 0,
      failed: 0,
      aborted: 0,
      tokens: 0,
      committedMigrations: 0,
      droppedMigrations: 0,
      lostInstances: this.#cluster.numLost,
      resumedElsewhere: this.#numResumedElsewhere,
    };
    for (const { outcome } of this.#cluster.reports) {
      if (outcome === "committed") statistics.committedMigrations++;
      else statistics.droppedMigrations++;
    }
    for (const { state, tokenIds, expectedTokenIds } of this.#ledger.entries.values()) {
      statistics.tokens += tokenIds.length;
      if (state === "aborted") statistics.aborted++;
      else if (tokenIds.length === expectedTokenIds.length) statistics.finished++;
      else statistics.failed++;
    }
    return statistics;
  }
}

/** Takes a held request as clients do: "unavailable" says nothing about it, so they try again. */
async function takePatiently(
  { client, node }: Pick<SimClient, "client" | "node">,
  requestId: RequestId,
  leastTokens: number,
): Promise<HeldRequest> {
  for (let attempt = 1;; attempt++) {
    try {
      return await client.take(requestId, leastTokens);
    } catch (error) {
      if (!(error instanceof LlumnixError) || error.kind !== "unavailable") throw error;
      if (attempt === TAKE_ATTEMPTS) throw new LlumnixError("not_found", error.message);
    }
    await sleep(node.clock, TAKE_PAUSE_MS);
  }
}

/** How long an aborted request may stay on an instance in a calm scenario. */
function abortBoundMs({ engine, network }: Scenario): number {
  return ABORT_BOUND.steps * longestStepMs(engine) + ABORT_BOUND.messages * network.meanDelayMs;
}
