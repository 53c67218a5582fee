/** Runs one scenario and tells what was seen. */
import { setTimeout as sleep } from "node:timers/promises";
import { Load, longestPauseMs, type Outcome, requests, runStream } from "./load.ts";
import { HostNetwork } from "./network.ts";
import { FAR, type Scenario, STORE_HOST } from "./scenarios.ts";
import { HOSTS, Service } from "./service.ts";
import { storeProblem, StoreServers } from "./stores.ts";

/** The service runs for so long before anything happens. */
const BEFORE_MS = 5_000;
/** After the last request, instances are empty by then. */
const EMPTY_LIMIT_MS = 30_000;
const POLL_MS = 200;
/** "None" for a standstill: pauses of a service on a busy machine that nothing happens to. */
export const NONE_MS = 300;
/** The same, as a multiple of the pauses before. */
export const NOISE = 2;

export interface Result {
  readonly scenario: Scenario;
  /** Longest pauses of dispatches and of a leader's answers, over all API servers that clients reach. */
  readonly dispatchPauseMs: number;
  readonly leaderPauseMs: number;
  /** Longest pause of a stream that went on. */
  readonly streamPauseMs: number;
  /** The longest of the first two before anything happened. */
  readonly quietPauseMs: number;
  /** Epochs that began. */
  readonly newEpochs: number;
  readonly outcome: Outcome;
  /** Processes of this machine that wanted a core, on average of the last minute. */
  readonly loadAverage: number;
  /** Tokens that instances computed and no client got; null: an instance that knows is gone. */
  readonly vainTokens: number | null;
  /** What does not hold; empty if all does. */
  readonly problems: readonly string[];
}

/** Why a scenario cannot run here; null if it can. */
export async function problemOf({ store, network, usesFilters }: Scenario): Promise<string | null> {
  return storeProblem(store) ?? (usesFilters ? HostNetwork.filterProblem() : null) ??
    await HostNetwork.problem(network);
}

/**
 * @param onLogs gets the logs of all processes if something does not hold
 * @param interrupted rejects to end the run; hosts and processes are then removed
 */
export async function runScenario(
  scenario: Scenario,
  onLogs: (logs: string) => Promise<void>,
  interrupted: Promise<never>,
): Promise<Result> {
  await using network = await HostNetwork.start(STORE_HOST, scenario.network);
  if (scenario.isFar) await network.setPaths(FAR);
  await using store = await StoreServers.start(scenario.store, network, scenario.servers);
  const first = scenario.servers.length > 1 ? await store.leader() : HOSTS[0];
  await using service = await Service.start(network, store.url, first);
  const run = new Run(scenario, service);
  const running = Promise.race([run.run(network, store), interrupted]);
  const result = await running.catch(async (error) => {
    await onLogs(service.logs);
    throw error;
  });
  if (result.problems.length > 0) await onLogs(service.logs);
  return result;
}

class Run {
  readonly #problems: string[] = [];

  constructor(private readonly scenario: Scenario, private readonly service: Service) {}

  async run(network: HostNetwork, store: StoreServers): Promise<Result> {
    const { scenario, service } = this;
    const { leader } = service;
    const url = service.urlOf(leader);
    const quiet = await Promise.all(requests.map((body) => runStream(url, body)));
    const loads = new Map(HOSTS.map((host) => [host, new Load(service.urlOf(host), quiet)]));
    const generatedBefore = await service.generatedTokens(HOSTS);
    const numEpochs = service.epochs.length;

    for (const load of loads.values()) load.start();
    const startMs = performance.now();
    await sleep(BEFORE_MS);
    const faultMs = performance.now();
    if (scenario.losesLeader) loads.get(leader as 1)!.abandon();
    const beforeHealing = () => this.#checkOwners("before it was healed");
    await scenario.act({ network, store, service, leader, beforeHealing });
    const endMs = performance.now();
    await Promise.all([...loads.values()].map((load) => load.stop()));

    const surviving = HOSTS.filter((host) => !(scenario.losesLeader && host === leader));
    const measured = surviving.filter((host) => !(scenario.cutsLeader && host === leader));
    const pauseOf = (of: (load: Load) => readonly number[], fromMs: number, toMs: number) =>
      Math.max(
        ...measured.map((host) => longestPauseMs(of(loads.get(host)!), fromMs, toMs)),
      );
    const outcome = sumOf(surviving.map((host) => loads.get(host)!.outcome));
    await this.#checkEnd();
    // A cut host's instance ends once it is back, and others are started.
    const isCounted = !scenario.losesLeader && !scenario.cutsLeader;
    const generated = isCounted ? await service.generatedTokens(HOSTS) - generatedBefore : 0;
    const result: Result = {
      scenario,
      dispatchPauseMs: pauseOf(({ dispatches }) => dispatches, faultMs, endMs),
      leaderPauseMs: pauseOf(({ reads }) => reads, faultMs, endMs),
      streamPauseMs: Math.max(
        ...surviving.map((host) => loads.get(host)!.longestStreamPauseMs),
      ),
      quietPauseMs: Math.max(
        pauseOf(({ dispatches }) => dispatches, startMs + 1_000, faultMs),
        pauseOf(({ reads }) => reads, startMs + 1_000, faultMs),
      ),
      newEpochs: service.epochs.length - numEpochs,
      outcome,
      loadAverage: Deno.loadavg()[0],
      vainTokens: isCounted ? generated - outcome.tokens : null,
      problems: this.#problems,
    };
    this.#judge(result);
    return result;
  }

  #judge(result: Result) {
    const { scenario, dispatchPauseMs, leaderPauseMs, newEpochs, outcome, vainTokens } = result;
    const { goalMs, isUnnoticed } = scenario;
    const limitMs = goalMs === 0
      ? Math.max(NONE_MS, NOISE * result.quietPauseMs)
      : goalMs ?? Infinity;
    for (
      const [what, pauseMs] of [["dispatch", dispatchPauseMs], ["leader", leaderPauseMs]] as const
    ) {
      if (pauseMs > limitMs) this.#problems.push(`no ${what} for ${Math.round(pauseMs)} ms`);
    }
    if (outcome.equal === 0) this.#problems.push("no stream ended");
    if (outcome.different > 0) this.#problems.push(`${outcome.different} streams differ`);
    if (outcome.lost > 0) this.#problems.push(`${outcome.lost} requests lost`);
    if (isUnnoticed && newEpochs > 0) this.#problems.push(`${newEpochs} new epochs`);
    if (!isUnnoticed && newEpochs === 0) this.#problems.push("no other manager took over");
    if ((vainTokens ?? 0) !== 0) {
      this.#problems.push(`${vainTokens} tokens computed that no client got: a request ran twice`);
    }
    this.#problems.push(...outcome.reasons);
  }

  /** No instance is in the lists of two managers. */
  async #checkOwners(when: string): Promise<void> {
    const owners = new Map<string, number>();
    for (const host of HOSTS) {
      for (const { instanceId } of await this.service.listOf(host) ?? []) {
        const other = owners.get(instanceId);
        if (other === undefined) owners.set(instanceId, host);
        else this.#problems.push(`${when}, ${instanceId} had two owners, hosts ${other}, ${host}`);
      }
    }
  }

  /** One manager leads, and no request is left at any instance. */
  async #checkEnd(): Promise<void> {
    await this.#checkOwners("in the end");
    const untilMs = performance.now() + EMPTY_LIMIT_MS;
    for (;;) {
      const lists = (await Promise.all(HOSTS.map((host) => this.service.listOf(host))))
        .filter((list) => list !== null);
      const left = lists.length === 1 ? await this.#requestsAt(lists[0]) : null;
      if (left === 0) return;
      if (performance.now() > untilMs) {
        const what = left === null ? `${lists.length} managers lead` : `${left} requests are left`;
        return void this.#problems.push(`in the end ${what}`);
      }
      await sleep(POLL_MS);
    }
  }

  /** Null: an instance does not answer. */
  async #requestsAt(
    list: NonNullable<Awaited<ReturnType<Service["listOf"]>>>,
  ): Promise<number | null> {
    try {
      const infos = await Promise.all(list.map((one) => this.service.statusOf(one)));
      return infos.reduce(
        (sum, one) => sum + one.runningRequests + one.waitingRequests + one.killedRequests,
        0,
      );
    } catch {
      return null;
    }
  }
}

function sumOf(outcomes: readonly Outcome[]): Outcome {
  const sum = (of: (one: Outcome) => number) => outcomes.reduce((all, one) => all + of(one), 0);
  return {
    equal: sum(({ equal }) => equal),
    answered: sum(({ answered }) => answered),
    tokens: sum(({ tokens }) => tokens),
    different: sum(({ different }) => different),
    lost: sum(({ lost }) => lost),
    reasons: outcomes.flatMap(({ reasons }) => reasons),
  };
}
