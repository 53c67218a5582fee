/** What happens to a service on three hosts, and how long it may then stand still. */
import { setTimeout as sleep } from "node:timers/promises";
import type { HostNetwork, NetworkKind } from "./network.ts";
import { HOSTS, INSTANCE_TIMEOUT_S, type Service } from "./service.ts";
import type { StoreName, StoreServers } from "./stores.ts";

/** The host that has the store's only server. */
export const STORE_HOST = 4;
/** A cut lasts longer than it takes until silent instances are given up. */
const CUT_MS = (INSTANCE_TIMEOUT_S + 5) * 1_000;
const AWAY_MS = 60_000;
/** Enough to see what follows, where nothing is healed. */
const AFTER_MS = 10_000;
const FAR = { delayMs: 50, loss: 0.02 };

export interface World {
  readonly network: HostNetwork;
  readonly store: StoreServers;
  readonly service: Service;
  /** The host whose manager leads when it happens. */
  readonly leader: number;
  /** Before a cut is healed: what must hold of the two sides. */
  readonly beforeHealing: () => Promise<void>;
}

export interface Scenario {
  readonly name: string;
  readonly store: StoreName;
  /** Hosts with a server of the store. */
  readonly servers: readonly number[];
  readonly network: NetworkKind;
  /** Delay and loss between hosts from the start on. */
  readonly isFar: boolean;
  /** Needs packet filters. */
  readonly usesFilters: boolean;
  /** Longest standstill that is wanted; null: measured without a goal. */
  readonly goalMs: number | null;
  /** Nothing may change: neither the leader nor the place of a request. */
  readonly isUnnoticed: boolean;
  /** The leader's host, with its API server and its instance, does not come back. */
  readonly losesLeader: boolean;
  /** The leader's host is out of the others' reach for a while: its clients are not measured. */
  readonly cutsLeader: boolean;
  /** Makes it happen, and returns when enough was seen. */
  readonly act: (world: World) => Promise<void>;
}

type Plan = Pick<Scenario, "name" | "act"> & Partial<Omit<Scenario, "goalMs">> & {
  readonly goalMs: Scenario["goalMs"] | "election";
};

const single: Omit<Scenario, "name" | "store" | "goalMs" | "act"> = {
  servers: [STORE_HOST],
  network: "bridge",
  isFar: false,
  usesFilters: false,
  isUnnoticed: false,
  losesLeader: false,
  cutsLeader: false,
};
const replicated = { servers: HOSTS } as const;
const far = { network: "switch", isFar: true } as const;

type Step = (network: HostNetwork, leader: number) => Promise<void>;
const unplug: Step = (network, leader) => network.unplug(leader);
const plug: Step = (network, leader) => network.plug(leader);
const unfilter: Step = (network, leader) => network.unfilter(leader);
const restorePaths: Step = (network) => network.setPaths({ delayMs: 0, loss: 0 });

/** Cuts the leader's host off, looks at both sides, heals the cut, and watches what follows. */
function cutLeader(cut: Step, heal: Step): Scenario["act"] {
  return async ({ network, leader, beforeHealing }) => {
    await cut(network, leader);
    await sleep(CUT_MS);
    await beforeHealing();
    await heal(network, leader);
    await sleep(AFTER_MS);
  };
}

async function killManager({ service, leader }: World): Promise<void> {
  service.killManager(leader);
  await sleep(AFTER_MS);
}

const plans: readonly Plan[] = [
  {
    name: "leader process killed",
    goalMs: 300,
    act: killManager,
  },
  {
    name: "leader process killed, 50 ms and 2% loss",
    ...far,
    goalMs: null,
    act: killManager,
  },
  {
    name: "leader's host lost",
    goalMs: 2_000,
    losesLeader: true,
    async act({ service, leader }) {
      await service.loseHost(leader);
      await sleep(CUT_MS);
    },
  },
  {
    name: "leader's host cut: link down",
    goalMs: 2_000,
    cutsLeader: true,
    act: cutLeader(unplug, plug),
  },
  {
    name: "leader's host cut: packets dropped",
    goalMs: 2_000,
    usesFilters: true,
    cutsLeader: true,
    act: cutLeader(
      (network, leader) =>
        network.filter(leader, [...HOSTS, STORE_HOST].filter((host) => host !== leader)),
      unfilter,
    ),
  },
  {
    name: "leader's host cut one way: it hears, and is not heard",
    network: "switch",
    goalMs: 2_000,
    cutsLeader: true,
    act: cutLeader((network, leader) => network.cut(leader, "*"), restorePaths),
  },
  {
    name: "leader's host cut one way: it is heard, and does not hear",
    network: "switch",
    goalMs: 2_000,
    cutsLeader: true,
    act: cutLeader((network, leader) => network.cut("*", leader), restorePaths),
  },
  {
    name: "leader's host cut, 50 ms and 2% loss",
    ...far,
    goalMs: 2_000,
    cutsLeader: true,
    act: cutLeader(unplug, plug),
  },
  {
    name: "leader cut from the other hosts, not from the store",
    usesFilters: true,
    goalMs: null,
    cutsLeader: true,
    act: cutLeader(
      (network, leader) => network.filter(leader, HOSTS.filter((host) => host !== leader)),
      unfilter,
    ),
  },
  {
    name: "store away for 60 s",
    goalMs: 0,
    isUnnoticed: true,
    async act({ network }) {
      await network.unplug(STORE_HOST);
      await sleep(AWAY_MS);
      await network.plug(STORE_HOST);
      await sleep(AFTER_MS);
    },
  },
  {
    name: "store cluster's leader killed",
    ...replicated,
    goalMs: 0,
    isUnnoticed: true,
    async act({ store }) {
      await store.kill(await store.leader());
      await sleep(2 * AFTER_MS);
    },
  },
  {
    name: "host of the leader and of the store cluster's leader lost",
    ...replicated,
    goalMs: "election",
    losesLeader: true,
    async act({ service, leader }) {
      await service.loseHost(leader);
      await sleep(CUT_MS + AFTER_MS);
    },
  },
];

/** Where the store has to elect a leader of its own first, which takes JetStream 4 to 9 s. */
const ELECTION_GOAL_MS: Record<StoreName, number> = { etcd: 2_500, nats: 10_000 };

/** Every plan on every store. */
export const scenarios: readonly Scenario[] = (["etcd", "nats"] as const).flatMap((store) =>
  plans.map((plan): Scenario => {
    const goalMs = plan.goalMs === "election" ? ELECTION_GOAL_MS[store] : plan.goalMs;
    return { ...single, ...plan, store, goalMs };
  })
);

export { FAR };
