import type { InstanceId } from "../../core/protocol/generate.ts";
import type { MigrateOutOrder, MigrationGroup } from "../../core/protocol/migration.ts";
import type { FormedGroup } from "../../manager/migration/migration_group.ts";
import { type Scenario, stalledMs } from "./scenario.ts";
import type { SimGroups } from "./sim_group.ts";
import type { SimInstance } from "./sim_instance.ts";

/** How long an order may be under way although nothing holds it up. */
const ORDER_LATENESS_MS = 2_000;

interface KnownGroup extends FormedGroup {
  readonly secret: string;
  /** When the next one was formed. */
  endedMs: number;
}

/** Checks what must hold of migration groups, whoever is killed or cut off while one is formed. */
export class GroupWatch {
  readonly #groups: SimGroups;
  readonly #violate: (what: string) => void;
  /** How long an order may be under way. */
  readonly #latenessMs: number;
  /** Some may be rightly left out for good: they do not answer in time. */
  readonly #mayBeTooSlow: boolean;
  /** Instances may come and go faster than all of them answer. */
  readonly #mayBeOvertaken: boolean;
  #secret = "";
  #latest: KnownGroup | null = null;
  /** Those of which orders may be under way; of former managers too. */
  #former: KnownGroup[] = [];

  constructor(groups: SimGroups, scenario: Scenario, violate: (what: string) => void) {
    this.#groups = groups;
    this.#latenessMs = ORDER_LATENESS_MS + stalledMs(scenario);
    this.#mayBeTooSlow = scenario.actions.some(({ type }) => type === "slow_link");
    this.#mayBeOvertaken = this.#mayBeTooSlow && scenario.scaling.enableScaling;
    this.#violate = violate;
  }

  /** A manager starts: it has formed no group. Orders of the one before may be under way. */
  begin(secret: string, nowMs: number): void {
    this.#secret = secret;
    this.#end(nowMs);
    this.#latest = null;
  }

  /**
   * All members have to serve, and to have said that they are connected with all others in this very
   * group.
   */
  noteFormed(
    { generation, members, leftOut }: FormedGroup,
    serving: readonly InstanceId[],
    nowMs: number,
  ): void {
    const secret = this.#secret;
    for (const gone of members.filter((id) => !serving.includes(id))) {
      this.#violate(`group ${generation} is said to be formed with ${gone}, which is gone`);
    }
    for (const pair of this.#groups.unconnected({ secret, generation }, members)) {
      this.#violate(`group ${generation} is said to be formed, and ${pair} are not connected`);
    }
    this.#end(nowMs);
    this.#latest = { secret, generation, members, leftOut, endedMs: Infinity };
  }

  /** Nobody is to move anything between instances that are not both in the group. */
  noteOrder(sourceId: InstanceId, { destination }: MigrateOutOrder, nowMs: number): void {
    this.#former = this.#former.filter(({ endedMs }) => nowMs - endedMs <= this.#latenessMs);
    const isAllowed = [this.#latest, ...this.#former].some((group) =>
      group?.members.includes(sourceId) && group.members.includes(destination.instanceId)
    );
    if (isAllowed) return;
    this.#violate(`${sourceId} is to migrate to ${destination.instanceId} without a group of both`);
  }

  /**
   * What is missing although nothing fails any more: all that serve are in the group, and all of them
   * know it for the one of now.
   */
  leftovers(serving: readonly InstanceId[], alive: readonly SimInstance[]): string[] {
    if (this.#mayBeOvertaken) return [];
    const { members = [], generation = 0, leftOut = [] } = this.#latest ?? {};
    const excused = this.#mayBeTooSlow ? leftOut.map(({ instanceId }) => instanceId) : [];
    const known = [...members, ...excused];
    const missing = serving.filter((id) => !known.includes(id)).map((id) =>
      `${id} is in no migration group`
    );
    const stale = alive.filter(({ name }) => {
      const group: MigrationGroup | null = this.#groups.get(name)?.group ?? null;
      return group?.secret !== this.#secret || group.generation !== generation;
    });
    return [...missing, ...stale.map(({ name }) => `${name} is in a migration group of before`)];
  }

  #end(nowMs: number): void {
    if (this.#latest === null) return;
    this.#latest.endedMs = nowMs;
    this.#former.push(this.#latest);
  }
}
