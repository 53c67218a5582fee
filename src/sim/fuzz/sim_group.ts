import { sleep } from "../../core/clock.ts";
import { UnavailableError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type {
  FailedPeer,
  MigrationGroup,
  MigrationGroupMember,
} from "../../core/protocol/migration.ts";
import type { SimNetwork, SimNode } from "../network/sim_bus.ts";

/** Pause before a connection is tried again. */
const RETRY_MS = 20;

/** What may go wrong when an instance joins a group, until faults end. */
export interface GroupFaults {
  /** Time limit of a connection's set-up, and about that of a join. */
  readonly initTimeoutMs: number;
  /** Share of the joins that take up to twice that time before they begin. */
  readonly slowShare: number;
  /** Share of the joins that fail. */
  readonly failedShare: number;
  readonly untilMs: number;
}

/**
 * Migration groups as gloo has them: every member connects to every other, and only accepts connections
 * of its own group, known by the secret. The latest invitation of an instance is its group.
 */
export class SimGroups {
  readonly #members = new Map<string, SimMember>();
  /** Connections that joins have reported, by group, as "from>to". */
  readonly #reported = new Map<string, Set<string>>();

  constructor(readonly network: SimNetwork, readonly faults: GroupFaults) {}

  open(node: SimNode): SimMember {
    const member = new SimMember(this, node);
    this.#members.set(node.name, member);
    return member;
  }

  close(name: string): void {
    this.#members.delete(name);
  }

  /** Undefined once its process has ended. */
  get(name: string): SimMember | undefined {
    return this.#members.get(name);
  }

  report(group: MigrationGroup, from: InstanceId, to: InstanceId): void {
    const key = keyOf(group);
    if (!this.#reported.has(key)) this.#reported.set(key, new Set());
    this.#reported.get(key)!.add(`${from}>${to}`);
  }

  /** Pairs of members that did not report, when they joined, that they are connected. */
  unconnected(
    group: Pick<MigrationGroup, "secret" | "generation">,
    members: readonly InstanceId[],
  ): string[] {
    const reported = this.#reported.get(keyOf(group));
    return members.flatMap((from) =>
      members.filter((to) => to !== from && !reported?.has(`${from}>${to}`))
        .map((to) => `${from} and ${to}`)
    );
  }
}

/** The connections of one instance. */
export class SimMember {
  /** Null before its first invitation. */
  group: MigrationGroup | null = null;

  constructor(private readonly groups: SimGroups, private readonly node: SimNode) {}

  async join(group: MigrationGroup): Promise<readonly FailedPeer[]> {
    const { faults } = this.groups;
    this.group = group;
    await this.#stumble();
    const own = group.members.find((member) => nodeOf(member) === this.node.name);
    const others = group.members.filter((member) => member !== own);
    const deadlineMs = this.node.clock.nowMs() + faults.initTimeoutMs;
    const failures = await Promise.all(others.map(async (member): Promise<FailedPeer | null> => {
      const reason = await this.#connect(group, member, deadlineMs);
      if (reason !== null) return { instanceId: member.instanceId, reason };
      this.groups.report(group, own!.instanceId, member.instanceId);
      return null;
    }));
    return failures.filter((failure) => failure !== null);
  }

  /** @throws {UnavailableError} the process is not connected in the latest group */
  async connectTo(node: string, deadlineMs: number, signal: AbortSignal): Promise<void> {
    const { group } = this;
    const member = group?.members.find((one) => nodeOf(one) === node);
    if (!group || !member) throw new UnavailableError(`${node} is not in the migration group`);
    const limitMs = this.node.clock.nowMs() + this.groups.faults.initTimeoutMs;
    const reason = await this.#connect(group, member, Math.min(deadlineMs, limitMs), signal);
    if (reason !== null) throw new UnavailableError(reason);
  }

  async #stumble(): Promise<void> {
    const { faults: { slowShare, failedShare, initTimeoutMs, untilMs }, network } = this.groups;
    const { clock } = this.node;
    if (clock.nowMs() >= untilMs) return;
    const luck = network.random.uniform();
    if (luck < failedShare) throw new UnavailableError("the backend cannot join");
    if (luck < failedShare + slowShare) {
      await sleep(clock, 2 * initTimeoutMs * network.random.uniform());
    }
  }

  /** @returns why the connection cannot be used; null: it can */
  async #connect(
    { secret }: MigrationGroup,
    member: MigrationGroupMember,
    deadlineMs: number,
    signal?: AbortSignal,
  ): Promise<string | null> {
    const { network } = this.groups;
    const { name, clock } = this.node;
    const to = nodeOf(member);
    for (;;) {
      const other = this.groups.get(to);
      if (other === undefined) return `nobody listens at ${to}`;
      const passes = network.canPass(name, to) && network.canPass(to, name);
      if (passes && !network.isStopped(to) && other.group?.secret === secret) break;
      if (signal?.aborted) return "the transfer was aborted";
      if (clock.nowMs() >= deadlineMs) return `${to} did not answer, or is not in that group`;
      await sleep(clock, RETRY_MS);
    }
    await sleep(clock, network.delayMs(name, to) + network.delayMs(to, name));
    return this.groups.get(to) === undefined ? `${to} closed the connection` : null;
  }
}

function nodeOf({ endpoint }: MigrationGroupMember): string {
  return endpoint.node as string;
}

function keyOf({ secret, generation }: Pick<MigrationGroup, "secret" | "generation">): string {
  return `${secret}:${generation}`;
}
