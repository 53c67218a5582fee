/** Watches the instances of our own server during a load, by its admin routes. */
import { type Clock, sleep } from "../core/clock.ts";
import type { Target } from "./target.ts";

const INTERVAL_MS = 500;
/** Most looks that are kept: half a day. Later ones are not taken. */
const MAX_LOOKS = 90_000;

export interface InstanceLook {
  readonly id: string;
  readonly state: string;
  readonly usedBlocks: number;
  readonly totalBlocks: number;
  readonly runningRequests: number;
  readonly waitingRequests: number;
}

/** The instances at one moment. */
export interface Look {
  readonly atMs: number;
  readonly instances: readonly InstanceLook[];
}

/** A request that was on another instance the look before. */
export interface SeenMigration {
  readonly atMs: number;
  readonly request: string;
  readonly from: string;
  readonly to: string;
}

/** What was seen. A request that moves and ends, or moves twice, between two looks is not noticed. */
export interface Timeline {
  readonly looks: readonly Look[];
  readonly migrations: readonly SeenMigration[];
  readonly intervalMs: number;
}

interface InstancesAnswer {
  readonly instances: readonly {
    readonly id: string;
    readonly state: string;
    readonly used_blocks: number | null;
    readonly total_blocks: number | null;
    readonly running_requests: number | null;
    readonly waiting_requests: number | null;
  }[];
}

interface RequestsAnswer {
  readonly requests: readonly { readonly id: string; readonly instance: string | null }[];
}

export class Observer {
  readonly #target: Target;
  readonly #clock: Clock;
  readonly #looks: Look[] = [];
  readonly #migrations: SeenMigration[] = [];
  #places = new Map<string, string>();
  #isStopped = false;
  #running: Promise<void> = Promise.resolve();

  /** @param target sends the admin token with each request */
  constructor(target: Target, clock: Clock) {
    this.#target = target;
    this.#clock = clock;
  }

  /** @throws {Error} the server has no admin routes, or refuses the token */
  async start(): Promise<void> {
    await this.#look();
    this.#running = this.#lookAgain();
  }

  async stop(): Promise<Timeline> {
    this.#isStopped = true;
    await this.#running;
    return { looks: this.#looks, migrations: this.#migrations, intervalMs: INTERVAL_MS };
  }

  async #lookAgain(): Promise<void> {
    while (!this.#isStopped && this.#looks.length < MAX_LOOKS) {
      await sleep(this.#clock, INTERVAL_MS);
      try {
        await this.#look();
      } catch {
        // The timeline has a gap there.
      }
    }
  }

  async #look(): Promise<void> {
    const [{ instances }, { requests }] = await Promise.all([
      this.#target.json("GET", "/admin/instances") as Promise<InstancesAnswer>,
      this.#target.json("GET", "/admin/requests") as Promise<RequestsAnswer>,
    ]);
    const atMs = this.#clock.nowMs();
    this.#looks.push({
      atMs,
      instances: instances.map((instance) => ({
        id: instance.id,
        state: instance.state,
        usedBlocks: instance.used_blocks ?? 0,
        totalBlocks: instance.total_blocks ?? 0,
        runningRequests: instance.running_requests ?? 0,
        waitingRequests: instance.waiting_requests ?? 0,
      })),
    });
    const places = new Map<string, string>();
    for (const { id, instance } of requests) {
      if (instance === null) continue;
      const before = this.#places.get(id);
      places.set(id, instance);
      if (before === undefined || before === instance) continue;
      this.#migrations.push({ atMs, request: id, from: before, to: instance });
    }
    this.#places = places;
  }
}
