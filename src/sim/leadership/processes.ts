import { isObeyed } from "../../bus/obey.ts";
import type { Peer } from "../../bus/bus.ts";
import { LeaderFence } from "../../core/leader_fence.ts";
import type { Leadership } from "../../core/protocol/leadership.ts";
import { Candidate } from "../../cluster/leadership/candidate.ts";
import { LeaderFinder } from "../../cluster/leadership/leader_finder.ts";
import type { LeaseStore } from "../../cluster/store/lease_store.ts";
import type { SimNode } from "../network/sim_bus.ts";
import type { Plant } from "./plants.ts";

/** Pause between two decisions of a leader. */
export const DECISION_INTERVAL_MS = 100;
/** Pause between two attempts of a receiver to connect to a manager, and limit of each. */
const CONNECT_RETRY_MS = 100;
const CONNECT_TIMEOUT_MS = 500;

export const managerAddress = (name: string) => `inproc:${name}`;

/** What happens in a run, as the checks see it. */
export interface Observer {
  leads(leadership: Leadership): void;
  follows(id: string, reason: string): void;
  /** A manager sends a decision. */
  decides(id: string, leadership: Leadership): void;
  /** A manager learns from a receiver that another one leads. */
  superseded(id: string, known: Leadership): void;
  /** A receiver obeys. */
  obeys(receiver: string, leadership: Leadership): void;
}

/** A manager's process: stands for election, and sends decisions to all receivers while it leads. */
export class SimManager {
  readonly id: string;
  readonly candidate: Candidate;
  readonly #peers = new Set<Peer>();
  readonly #plant: Plant | null;
  readonly #observer: Observer;
  #lastLeadership: Leadership | null = null;
  #numDecisions = 0;
  #isClosed = false;

  constructor(
    readonly node: SimNode,
    store: LeaseStore,
    leaseMs: number,
    incarnation: number,
    plant: Plant | null,
    observer: Observer,
  ) {
    this.id = `${node.name}#${incarnation}`;
    this.#plant = plant;
    this.#observer = observer;
    this.candidate = new Candidate({
      store,
      clock: node.clock,
      bus: node.bus,
      id: this.id,
      address: managerAddress(node.name),
      leaseMs,
      heard: plant === "leader_does_not_give_way" ? undefined : () => this.#peers.size,
      onChange: (change) => {
        if (change.type === "leads") observer.leads(this.#lastLeadership = change.leadership);
        else observer.follows(this.id, change.reason);
      },
    });
  }

  async listen(): Promise<void> {
    await this.node.bus.listen(managerAddress(this.node.name), {
      calls: {
        identify: () => ({ data: { process: this.id } }),
        subscribe: (_, peer) => {
          this.#peers.add(peer);
          return { data: null };
        },
      },
      notifications: {
        superseded: ({ data }) => {
          this.#observer.superseded(this.id, data);
          this.candidate.learn(data);
        },
      },
      onClose: (peer) => this.#peers.delete(peer),
    });
    this.#decideAgain();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.candidate.close();
  }

  #decideAgain(): void {
    this.node.clock.after(DECISION_INTERVAL_MS, () => {
      if (this.#isClosed) return;
      this.#decide();
      this.#decideAgain();
    });
  }

  #decide(): void {
    const leadership = this.#stamp();
    if (leadership === null) return;
    this.#observer.decides(this.id, leadership);
    const version = ++this.#numDecisions;
    const data = { version, instances: [], expectedInstances: 1, leadership };
    for (const peer of this.#peers) peer.notify("instances", { data });
  }

  #stamp(): Leadership | null {
    const { leadership, record, storeProblem } = this.candidate;
    if (this.#plant === "leader_goes_on") return this.#lastLeadership;
    if (this.#plant === "store_away_ends_leadership" && storeProblem !== null) return null;
    if (this.#plant === "leader_ignores_its_epoch" && this.#lastLeadership !== null) {
      return { leader: this.id, epoch: record?.epoch ?? this.#lastLeadership.epoch };
    }
    return leadership;
  }
}

/** An instance or an API server: connected to all managers, obeys the one that leads. */
export class SimReceiver {
  readonly fence: LeaderFence;
  readonly finder: LeaderFinder;
  /** When it obeyed last. */
  obeyedMs = 0;
  readonly #plant: Plant | null;
  readonly #observer: Observer;

  constructor(
    readonly node: SimNode,
    store: LeaseStore,
    leaseMs: number,
    managers: readonly string[],
    plant: Plant | null,
    observer: Observer,
  ) {
    this.#plant = plant;
    this.#observer = observer;
    this.fence = new LeaderFence(node.name);
    this.finder = new LeaderFinder({
      store,
      clock: node.clock,
      leaseMs,
      fence: this.fence,
      onMove: () => {},
    });
    for (const name of managers) this.#connect(managerAddress(name));
  }

  async #connect(address: string): Promise<void> {
    const again = () => this.node.clock.after(CONNECT_RETRY_MS, () => this.#connect(address));
    const options = { timeoutMs: CONNECT_TIMEOUT_MS };
    try {
      let hasSubscribed = false;
      const peer = await this.node.bus.connect(address, {
        notifications: {
          instances: ({ data }, peer) => {
            if (this.#plant !== "receiver_does_not_fence" && !isObeyed(this.fence, data, peer)) {
              return;
            }
            this.obeyedMs = this.node.clock.nowMs();
            this.#observer.obeys(this.node.name, data.leadership!);
          },
        },
        onClose: () => hasSubscribed && again(),
      }, options);
      await peer.call("subscribe", { data: null }, options);
      hasSubscribed = true;
      if (!peer.isOpen) again();
    } catch {
      again();
    }
  }
}
