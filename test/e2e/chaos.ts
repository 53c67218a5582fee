/** Many things that happen to a service at once, drawn from a seed. */
import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
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
import { signalIfThere } from "./harness.ts";
import { runStream, type StreamResult, variedRequests } from "./streams.ts";

export interface ChaosPlan {
  readonly seed: number;
  readonly numInstances: number;
  readonly backend: "rayrpc" | "gloo";
  /** Streams that are open at the same time. */
  readonly concurrency: number;
  /** By number of events. */
  readonly actions: readonly ChaosAction[];
}

/**
 * Something that happens when the streams have brought so many events. Instances are numbered in the
 * order of their names, modulo those that serve and are to go on.
 */
export type ChaosAction =
  & { readonly atEvent: number }
  & (
    /** `hang`: stopped for good; `terminate`: asked to end by a signal. */
    | {
      readonly type: "kill" | "hang" | "terminate" | "drain" | "remove";
      readonly instance: number;
    }
    /** Stopped, and continued before anybody takes it for lost. */
    | { readonly type: "freeze"; readonly instance: number; readonly forMs: number }
    | { readonly type: "add" }
    /** Clients that come, and leave after some events. */
    | { readonly type: "leave"; readonly clients: number; readonly patience: number }
  );

const NUM_STREAMS = 20;
const TOKENS_PER_STREAM = 500;
/** The streams bring more, so that all actions fall on open streams. */
const LAST_ACTION_EVENT = 6_000;
/** A request is resumed as often. */
const MAX_LOSSES = 3;

const types = [
  ...["kill", "kill", "hang", "freeze", "terminate", "drain", "remove", "add", "leave"],
] as const;
/** Longer than anything is frozen, also on a busy machine. */
const INSTANCE_TIMEOUT_S = 2;

/** An instance may be gone, or stop, when an operator's order arrives. */
const refusals = [404, 409];

/** The streams that every plan runs. */
export const chaosRequests = variedRequests(NUM_STREAMS, TOKENS_PER_STREAM);

export function chaosPlan(seed: number): ChaosPlan {
  const random = new Random(seed);
  const pick = <T>(values: readonly T[]): T => values[random.below(values.length)];
  const actions: ChaosAction[] = [];
  let losses = 0;
  while (actions.length < 8) {
    const atEvent = random.below(LAST_ACTION_EVENT);
    const instance = random.below(100);
    const type = pick(types);
    if ((type === "kill" || type === "hang") && ++losses > MAX_LOSSES) continue;
    switch (type) {
      case "add":
        actions.push({ atEvent, type });
        break;
      case "leave":
        actions.push({ atEvent, type, clients: 1 + random.below(20), patience: random.below(60) });
        break;
      case "freeze":
        actions.push({ atEvent, type, instance, forMs: 20 + random.below(300) });
        break;
      default:
        actions.push({ atEvent, type, instance });
    }
  }
  return {
    seed,
    numInstances: 2 + random.below(3),
    backend: pick(["gloo", "rayrpc"]),
    concurrency: pick([4, 8, 20]),
    actions: actions.sort((a, b) => a.atEvent - b.atEvent),
  };
}

/** What the streams bring when nothing happens, from one instance that nothing moves to. */
export async function quietStreams(): Promise<readonly StreamResult[]> {
  await using cluster = await startCluster(1);
  return await inPool(chaosRequests, 4, (request) => runStream(cluster.url, request));
}

/** Runs a plan. Fails unless every stream is that of the quiet run and nothing is left behind. */
export async function runChaos(
  plan: ChaosPlan,
  quiet: readonly StreamResult[],
): Promise<void> {
  const args = [...restless, "--migration-backend", plan.backend];
  args.push("--instance-timeout", `${INSTANCE_TIMEOUT_S}`);
  await using cluster = await startCluster(plan.numInstances, args);
  const pending = [...plan.actions];
  const done: Promise<void>[] = [];
  const spent = new Set<string>();
  let events = 0;
  const onEvent = () => {
    events++;
    while (pending.length > 0 && pending[0].atEvent <= events) {
      done.push(act(cluster, pending.shift()!, spent));
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
  await waitUntilReady(cluster);
  await waitUntilEmpty(cluster);
}

/** @param spent instances that are killed or asked to leave; the others are never all of them */
async function act(cluster: Cluster, action: ChaosAction, spent: Set<string>): Promise<void> {
  switch (action.type) {
    case "add":
      await admin(cluster, "POST", "/instances");
      return;
    case "leave":
      return await leave(cluster, action.clients, action.patience);
  }
  const serving = await servingInstances(cluster);
  const eligible = serving.filter(({ instanceId }) => !spent.has(instanceId));
  if (eligible.length < 2) return;
  const { instanceId, pid } = eligible[action.instance % eligible.length];
  if (action.type === "freeze") return await freeze(pid, action.forMs);
  spent.add(instanceId);
  switch (action.type) {
    case "kill":
      return signalIfThere(pid, "SIGKILL");
    case "hang":
      return signalIfThere(pid, "SIGSTOP");
    case "terminate":
      return signalIfThere(pid, "SIGTERM");
    case "drain":
      await admin(cluster, "POST", `/instances/${instanceId}/drain`, refusals);
      return;
    case "remove":
      await admin(cluster, "DELETE", `/instances/${instanceId}`, refusals);
      return;
  }
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
