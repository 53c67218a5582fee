import type { Clock } from "../../core/clock.ts";
import { toErrorRecord } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type {
  FailedPeer,
  MigrationGroup,
  MigrationGroupMember,
} from "../../core/protocol/migration.ts";
import type { ManagedInstance } from "../fleet/managed_instance.ts";

/** What an answer may take beyond the time that an instance has for its connections. */
const ANSWER_MARGIN_MS = 1_000;
/** Pause before instances that were left out are tried again. */
const RETRY_MS = 10_000;

/** For backends whose instances form a group (gloo). */
export interface GroupOptions {
  /** What members know each other by: nobody else may guess it. */
  readonly secret: string;
  /** How long its set-up may take (`--migration-backend-init-timeout`). */
  readonly initTimeoutMs: number;
}

export interface GroupKeeperConfig {
  readonly clock: Clock;
  readonly options: GroupOptions;
  /** Those that serve. */
  readonly instances: () => readonly ManagedInstance[];
  /** A generation is set up. `leftOut` take no part in migration for now. */
  readonly onFormed: (group: FormedGroup) => void;
}

export interface FormedGroup {
  readonly generation: number;
  readonly members: readonly InstanceId[];
  readonly leftOut: readonly FailedPeer[];
}

/**
 * Keeps the group that moves blocks: whenever instances come or go it has a new generation with ranks
 * from 0, in which each member connects to each. Members of the one before go on meanwhile; an
 * instance that cannot be set up in time is left out, and tried again later.
 */
export class GroupKeeper {
  readonly #config: GroupKeeperConfig;
  readonly #ready = new Set<InstanceId>();
  #generation = 0;
  /** Members of the latest generation, and where they are. */
  #membership = "[]";
  #isForming = false;
  #isStale = false;
  #cancelRetry: (() => void) | null = null;
  #isStopped = false;

  constructor(config: GroupKeeperConfig) {
    this.#config = config;
  }

  /** It is set up with all others of which this is true. */
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
    // Who went meanwhile, or came back as another, is in the next generation.
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

  /** Its failed peers, or why there is no answer. */
  async #invite(
    instanceId: InstanceId,
    group: MigrationGroup,
  ): Promise<readonly FailedPeer[] | string> {
    const { options: { initTimeoutMs } } = this.#config;
    const peer = this.#candidates().find((one) => one.instanceId === instanceId)?.peer;
    if (!peer) return "it is gone";
    try {
      const timeoutMs = initTimeoutMs + ANSWER_MARGIN_MS;
      const { data } = await peer.call("migration_group", { data: group }, { timeoutMs });
      return data.failedPeers;
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
 * The fewest members without whom all others are connected, as a rule: those that did not answer, then
 * again and again whoever is part of most of the connections that failed, the latest of several.
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
