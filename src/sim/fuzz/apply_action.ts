import type { Cut, Link, ScenarioAction } from "./scenario.ts";
import { MANAGER_NODE, type SimCluster } from "./sim_cluster.ts";
import type { SimInstance } from "./sim_instance.ts";

const SLOWNESS = 10;

/** Applies an action to the cluster. Its numbers select among the instances and clients that run. */
export function applyAction(cluster: SimCluster, action: ScenarioAction): void {
  const note = (what: string) => cluster.trace.add("*", () => what);
  switch (action.type) {
    case "crash":
      return onInstance(cluster, action.instance, (sim) => {
        note(`${sim.name} crashes`);
        cluster.killInstance(sim);
      });
    case "terminate":
      return onInstance(cluster, action.instance, (sim) => {
        note(`${sim.name} gets SIGTERM`);
        sim.node.clock.soon(() => sim.instance.drain("got SIGTERM"));
      });
    case "slow":
      return onInstance(cluster, action.instance, (sim) => {
        note(`${sim.name} is slow`);
        sim.slowness = SLOWNESS;
      });
    case "hang_step":
      return onInstance(cluster, action.instance, (sim) => {
        note(`a step of ${sim.name} does not end`);
        sim.hangStep();
      });
    case "reset":
      return onInstance(cluster, action.instance, (sim) => {
        note(`all connections of ${sim.name} break`);
        cluster.network.breakConnections(sim.name);
      });
    case "hang":
      return onInstance(cluster, action.instance, (sim) => {
        note(`${sim.name} hangs for ${action.forMs.toFixed()} ms`);
        cluster.network.pause(sim.name);
        cluster.clock.after(action.forMs, () => cluster.network.resume(sim.name));
      });
    case "restart_manager":
      if (!cluster.manager) return;
      note("the manager crashes");
      cluster.killManager();
      cluster.clock.after(action.forMs, () => {
        note("the manager starts again");
        cluster.restartManager();
      });
      return;
    case "add":
      note("an instance is added");
      cluster.manager?.addInstance().catch(() => {}); // the instance may be lost as it starts
      return;
    case "drain":
      return onInstance(cluster, action.instance, (sim) => {
        const others = cluster.availableInstances.filter((one) => one !== sim);
        // Otherwise no instance might serve: one that starts may fail, and a removed one is not replaced.
        if (!others.some((one) => cluster.isServing(one))) return;
        note(`${sim.name} is removed`);
        cluster.remove(sim);
      });
    case "crash_client": {
      const clients = cluster.aliveClients;
      if (clients.length < 2) return;
      const client = clients[action.client % clients.length];
      note(`${client.node.name} crashes`);
      return cluster.killClient(client);
    }
    case "partition":
      return partition(cluster, action);
    case "slow_link": {
      const [a, b] = nodesOf(cluster, action.between, action.first, action.second);
      if (a === b) return;
      note(`the link ${a} - ${b} is slow`);
      cluster.network.setSlowness(a, b, action.factor);
      cluster.network.setSlowness(b, a, action.factor);
      return;
    }
    case "break_after":
      return cluster.onMessage(action.method, action.count, (from, to) => {
        note(`the connections ${from} - ${to} break after ${action.method}`);
        cluster.network.breakConnections(from, to);
      });
    case "crash_after":
      return cluster.onMessage(action.method, action.count, (_, to) => {
        const sim = cluster.aliveInstances.find(({ name }) => name === to);
        if (!sim) return;
        note(`${to} crashes after ${action.method}`);
        cluster.killInstance(sim);
      });
    case "cut_after":
      return cluster.onMessage(action.method, action.count, (from, to) => {
        note(`after ${action.method} of ${from} to ${to}:`);
        cut(cluster, from, to, action);
      });
  }
}

function partition(cluster: SimCluster, action: ScenarioAction & { type: "partition" }): void {
  const [a, b] = nodesOf(cluster, action.between, action.first, action.second);
  if (a !== b) cut(cluster, a, b, action);
}

function cut(cluster: SimCluster, a: string, b: string, { direction, forMs }: Cut): void {
  const { network, clock, trace } = cluster;
  trace.add("*", () => `nothing passes ${a} - ${b} (${direction}) for ${forMs.toFixed()} ms`);
  const ways = [[a, b], [b, a]].slice(direction === "back" ? 1 : 0, direction === "forth" ? 1 : 2);
  for (const [from, to] of ways) {
    network.block(from, to);
    clock.after(forMs, () => network.heal(from, to));
  }
}

function onInstance(
  cluster: SimCluster,
  number: number,
  body: (sim: SimInstance) => void,
): void {
  const available = cluster.availableInstances;
  if (available.length > 0) body(available[number % available.length]);
}

function nodesOf(cluster: SimCluster, between: Link, first: number, second: number) {
  const instances = cluster.aliveInstances.map(({ name }) => name);
  const clients = cluster.aliveClients.map(({ node }) => node.name);
  const pick = (names: readonly string[], number: number) => names[number % names.length] ?? "-";
  switch (between) {
    case "instances":
      return [pick(instances, first), pick(instances, second)];
    case "manager_instance":
      return [MANAGER_NODE, pick(instances, second)];
    case "client_instance":
      return [pick(clients, first), pick(instances, second)];
    case "client_manager":
      return [pick(clients, first), MANAGER_NODE];
  }
}
