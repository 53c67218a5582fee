/** Many things that happen to a service at once, and what must hold all the same. */
import assert from "node:assert/strict";
import type { InstanceRegistration } from "../../src/core/protocol/membership.ts";
import type { ChaosAction, ChaosPlan } from "./chaos_plan.ts";
import {
  admin,
  assertSameStreams,
  type Cluster,
  restless,
  servingInstances,
  startCluster,
  waitUntilEmpty,
  waitUntilReady,
} from "./cluster.ts";
import { type Program, signalIfThere } from "./harness.ts";
import { User } from "./roles.ts";
import { runStream, type StreamRequest, type StreamResult, variedRequests } from "./streams.ts";

const NUM_STREAMS = 20;
const TOKENS_PER_STREAM = 500;
/** Longer than anything is frozen, also on a busy machine. */
const INSTANCE_TIMEOUT_S = 2;
const MAX_INSTANCES = 4;

/** A process may be gone, or stop, when an operator's order arrives. */
const refusals = [404, 409, 503];

/** Twenty streams are a load for more than two instances of 2,000 blocks; none is one for less. */
const scaling = [
  ...["--enable-scaling", "--max-instances", `${MAX_INSTANCES}`, "--scaling-interval", "0.05"],
  ...["--scale-up-threshold", "300", "--scale-down-threshold", "310"],
];

/** The streams that every plan runs. */
export const chaosRequests = variedRequests(NUM_STREAMS, TOKENS_PER_STREAM);

/** What requests bring when nothing happens, from one instance that nothing moves to. */
export async function quietStreams(
  requests: readonly StreamRequest[] = chaosRequests,
): Promise<readonly StreamResult[]> {
  await using cluster = await startCluster(1);
  return await inPool(requests, 4, (request) => runStream(cluster.url, request));
}

/** Runs a plan. Fails unless every stream is that of the quiet run and nothing is left behind. */
export async function runChaos(
  plan: ChaosPlan,
  quiet: readonly StreamResult[],
): Promise<void> {
  await using target = await Target.start(plan);
  const { cluster } = target;
  const pending = [...plan.actions];
  const done: Promise<void>[] = [];
  let events = 0;
  const onEvent = () => {
    events++;
    while (pending.length > 0 && pending[0].atEvent <= events) {
      done.push(target.act(pending.shift()!));
    }
  };
  const streams = await inPool(
    chaosRequests,
    plan.concurrency,
    (request) => runStream(cluster.url, request, { onEvent }),
  );
  assert.deepEqual(pending, [], "everything happened while streams were open");
  await Promise.all(done);
  assertSameStreams(streams, quiet);
  const { stderr } = cluster.program;
  if (plan.isApart) assert.match(stderr, /lost the manager/);
  else if (plan.isScaling) assert.match(stderr, /scaling up by load/);
  await waitUntilReady(cluster);
  await waitUntilEmpty(cluster);
  if (plan.isScaling) await waitUntilScaledDown(cluster, plan.numInstances);
  await target.stop();
}

/** The service that it happens to. */
class Target implements AsyncDisposable {
  readonly #disposables: AsyncDisposableStack;
  readonly #startManager: () => Program;
  /** Its own program, or that of the API server. */
  #manager: Program;
  /** Settled when there is a manager again. */
  #managerIsBack: Promise<void> = Promise.resolve();
  /** Instances that are killed or asked to leave; the others are never all of them. */
  readonly #spent = new Set<string>();
  /** Those that served when the manager was last asked. */
  #known: readonly InstanceRegistration[] = [];

  private constructor(
    readonly cluster: Cluster,
    manager: Program,
    startManager: () => Program,
    disposables: AsyncDisposableStack,
  ) {
    this.#manager = manager;
    this.#startManager = startManager;
    this.#disposables = disposables;
  }

  static async start(plan: ChaosPlan): Promise<Target> {
    const { isApart, isScaling, numInstances, backend } = plan;
    const args = [...restless, "--migration-backend", backend];
    args.push("--instance-timeout", `${INSTANCE_TIMEOUT_S}`);
    if (isScaling) args.push("--min-instances", `${numInstances}`, ...scaling);
    await using disposables = new AsyncDisposableStack();
    if (!isApart) {
      const cluster = disposables.use(await startCluster(numInstances, args));
      const { program } = cluster;
      return new Target(cluster, program, () => program, disposables.move());
    }
    const user = disposables.use(new User());
    const start = () => user.manager("--initial-instances", `${numInstances}`, ...args);
    const manager = start();
    return new Target(await user.cluster(), manager, start, disposables.move());
  }

  async act(action: ChaosAction): Promise<void> {
    switch (action.type) {
      case "add":
        await admin(this.cluster, "POST", "/instances", refusals);
        return;
      case "leave":
        return await leave(this.cluster, action.clients, action.patience);
      case "kill_manager":
        // One after the other: two managers are refused.
        this.#managerIsBack = this.#managerIsBack.then(() => this.#killManager(action.forMs));
        return await this.#managerIsBack;
    }
    const eligible = (await this.#serving()).filter(({ instanceId }) =>
      !this.#spent.has(instanceId)
    );
    if (eligible.length < 2) return;
    const { instanceId, pid } = eligible[action.instance % eligible.length];
    if (action.type === "freeze") return await freeze(pid, action.forMs);
    this.#spent.add(instanceId);
    switch (action.type) {
      case "kill":
        return signalIfThere(pid, "SIGKILL");
      case "hang":
        return signalIfThere(pid, "SIGSTOP");
      case "terminate":
        return signalIfThere(pid, "SIGTERM");
      case "drain":
        await admin(this.cluster, "POST", `/instances/${instanceId}/drain`, refusals);
        return;
      case "remove":
        await admin(this.cluster, "DELETE", `/instances/${instanceId}`, refusals);
        return;
    }
  }

  /** Ends it in order, and checks that nothing is left behind. */
  async stop(): Promise<void> {
    assert.equal((await this.#manager.stop()).code, 0);
    await this.cluster.program.stopWell();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposables.disposeAsync();
  }

  async #serving(): Promise<readonly InstanceRegistration[]> {
    try {
      this.#known = await servingInstances(this.cluster);
    } catch {
      // There is no manager to ask: those that it had go on.
    }
    return this.#known;
  }

  async #killManager(forMs: number): Promise<void> {
    await this.#serving();
    this.#manager.signal("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, forMs));
    this.#manager = this.#startManager();
    await this.#manager.waitForLog(/instance-\S+ is ready/);
  }
}

/** The load has had more instances come, and they go with it. */
async function waitUntilScaledDown(cluster: Cluster, minInstances: number): Promise<void> {
  await cluster.program.waitUntil(`${minInstances} instances served`, async () => {
    const { instances } = await admin(cluster, "GET", "/instances");
    return instances.filter(({ state }) => state === "serving").length === minInstances;
  });
}

async function freeze(pid: number, forMs: number): Promise<void> {
  signalIfThere(pid, "SIGSTOP");
  await new Promise((resolve) => setTimeout(resolve, forMs));
  signalIfThere(pid, "SIGCONT");
}

/** Clients that leave after `patience` events, or before the first. */
export async function leave(cluster: Cluster, clients: number, patience: number): Promise<void> {
  await Promise.all(
    variedRequests(clients, 2_000).map(async (request) => {
      const client = new AbortController();
      let events = 0;
      const onEvent = () => ++events >= patience && client.abort();
      const stream = runStream(cluster.url, request, { onEvent, signal: client.signal });
      if (patience === 0) client.abort();
      await assert.rejects(stream);
    }),
  );
}

/** Runs a task for every value, so many at a time; results are in the order of the values. */
async function inPool<T, R>(
  values: readonly T[],
  concurrency: number,
  task: (value: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (next < values.length) {
        const index = next++;
        results[index] = await task(values[index]);
      }
    }),
  );
  return results;
}
