import type { Clock } from "../../core/clock.ts";
import { toErrorRecord } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type {
  FailedPeer,
  MigrationGroup,
  MigrationGroupMember,
} from "../../core/protocol/migration.ts";
import type { Authority } from "../authority.ts";
import type { ManagedInstance } from "../fleet/managed_instance.ts";

/** Time for an answer, beyond the time that an instance has to set up its connections. */
const ANSWER_MARGIN_MS = 1_000;
/** Pause before a new generation that tries the left-out instances again. */
const RETRY_MS = 10_000;

/** Options of migration backends whose instances form a group. */
export interface GroupOptions {
  /** Members recognise each other by it; it must be hard to guess. */
  readonly secret: string;
  /** Time limit for the set-up of a generation (`--migration-backend-init-timeout`). */
  readonly initTimeoutMs: number;
}

export interface GroupKeeperConfig {
  readonly clock: Clock;
  readonly options: GroupOptions;
  readonly authority: Authority;
  /** The instances that serve and may take part in migration. */
  readonly instances: () => readonly ManagedInstance[];
  /** A generation is set up. */
  readonly onFormed: (group: FormedGroup) => void;
}

export interface FormedGroup {
  readonly generation: number;
  readonly members: readonly InstanceId[];
  /** Instances that take no part in migration until a later generation connects them, and why. */
  readonly leftOut: readonly FailedPeer[];
}

/**
 * Keeps the group of instances that move blocks to each other. Whenever instances come or go, it forms
 * a new generation, with ranks from 0, in which every member connects to every other. Members of the
 * previous generation keep migrating meanwhile. An instance that cannot be set up in time is left out,
 * and tried again later. See src/manager/README.md, "Migration groups".
 */
export class GroupKeeper {
  readonly #config: GroupKeeperConfig;
  readonly #ready = new Set<InstanceId>();
  #generation = 0;
  /** Members of the latest generation and their endpoints, as JSON. */
  #membership = "[]";
  #isForming = false;
  #isStale = false;
  #cancelRetry: (() => void) | null = null;
  #isStopped = false;

  constructor(config: GroupKeeperConfig) {
    this.#config = config;
  }

  /** Whether an instance is connected with all other instances for which this is true. */
  isReady(instanceId: InstanceId): boolean {
    return this.#ready.has(instanceId);
  }

  /** Instances may have come or gone. */
  update(): void {
    const members = this.#members();
    const membership = JSON.stringify(members);
    if (membership === this.#membership || this.#isStopped) return;
    this.#membership = membership;
    const present = new Set(members.map(({ instanceId }) => instanceId));
    for (const id of this.#ready) if (!present.has(id)) this.#ready.delete(id);
    this.#formSoon();
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelRetry?.();
  }

  #formSoon(): void {
    this.#isStale = true;
    this.#cancelRetry?.();
    if (!this.#isForming) this.#form();
  }

  async #form(): Promise<void> {
    this.#isForming = true;
    while (this.#isStale && !this.#isStopped) {
      this.#isStale = false;
      await this.#formGeneration(this.#members());
    }
    this.#isForming = false;
  }

  async #formGeneration(members: readonly MigrationGroupMember[]): Promise<void> {
    const { options: { secret }, clock, onFormed } = this.#config;
    const group: MigrationGroup = { secret, generation: ++this.#generation, members };
    const answers = await Promise.all(members.map(async ({ instanceId }) => {
      return [instanceId, await this.#invite(instanceId, group)] as const;
    }));
    const leftOut = membersToLeaveOut(answers);
    // Instances went, came or changed meanwhile: the next generation takes them into account.
    if (this.#isStale || this.#isStopped) return;
    this.#ready.clear();
    for (const { instanceId } of members) {
      if (!leftOut.some((one) => one.instanceId === instanceId)) this.#ready.add(instanceId);
    }
    onFormed({ generation: group.generation, members: [...this.#ready], leftOut });
    if (leftOut.length > 0) {
      this.#cancelRetry = clock.after(RETRY_MS, () => this.#formSoon());
    }
  }

  /** @returns the peers that the instance could not connect to, or why it did not answer */
  async #invite(
    instanceId: InstanceId,
    group: MigrationGroup,
  ): Promise<readonly FailedPeer[] | string> {
    const { options: { initTimeoutMs }, authority } = this.#config;
    const peer = this.#candidates().find((one) => one.instanceId === instanceId)?.peer;
    if (!peer) return "it is gone";
    try {
      const timeoutMs = initTimeoutMs + ANSWER_MARGIN_MS;
      const data = { ...group, ...authority.demand() };
      const { data: reply } = await peer.call("migration_group", { data }, { timeoutMs });
      return reply.failedPeers;
    } catch (error) {
      return toErrorRecord(error).message;
    }
  }

  #members(): MigrationGroupMember[] {
    return this.#candidates().map(({ instanceId, registration }, rank) => {
      return { instanceId, rank, endpoint: registration!.migration!.endpoint };
    });
  }

  #candidates(): ManagedInstance[] {
    return this.#config.instances().filter(({ registration, peer }) =>
      peer !== null && registration?.migration !== undefined
    );
  }
}

/**
 * Chooses members so that all others are connected with each other; usually the fewest possible. First
 * come the members that did not answer; then, until no failed connection is left, the member with the
 * most failed connections, among equals the one with the highest rank.
 * @param answers of the members by rank: failed peers, or why there is no answer
 */
export function membersToLeaveOut(
  answers: readonly (readonly [InstanceId, readonly FailedPeer[] | string])[],
): FailedPeer[] {
  const leftOut = new Map<InstanceId, string>();
  const failures: { readonly pair: readonly InstanceId[]; readonly reason: string }[] = [];
  for (const [instanceId, answer] of answers) {
    if (typeof answer === "string") leftOut.set(instanceId, answer);
    else {
      for (const { instanceId: other, reason } of answer) {
        failures.push({ pair: [instanceId, other], reason });
      }
    }
  }
  for (;;) {
    const open = failures.filter(({ pair }) => !pair.some((id) => leftOut.has(id)));
    if (open.length === 0) break;
    const numFailures = (id: InstanceId) => open.filter(({ pair }) => pair.includes(id)).length;
    let worst = open[0].pair[0];
    for (const [id] of answers) if (numFailures(id) >= numFailures(worst)) worst = id;
    leftOut.set(worst, open.find(({ pair }) => pair.includes(worst))!.reason);
  }
  return [...leftOut].map(([instanceId, reason]) => ({ instanceId, reason }));
}
