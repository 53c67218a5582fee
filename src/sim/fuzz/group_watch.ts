import type { InstanceId } from "../../core/protocol/generate.ts";
import type { MigrateOutOrder, MigrationGroup } from "../../core/protocol/migration.ts";
import type { FormedGroup } from "../../manager/migration/migration_group.ts";
import { type Scenario, stalledMs } from "./scenario.ts";
import type { SimGroups } from "./sim_group.ts";
import type { SimInstance } from "./sim_instance.ts";

/** Longest time that an order is under way if nothing delays it. */
const ORDER_LATENESS_MS = 2_000;

interface KnownGroup extends FormedGroup {
  readonly secret: string;
  /** When the next group was formed. */
  endedMs: number;
}

/** Checks the invariants of migration groups, even if members are killed or cut off meanwhile. */
export class GroupWatch {
  readonly #groups: SimGroups;
  readonly #violate: (what: string) => void;
  /** Longest time that an order may be under way. */
  readonly #latenessMs: number;
  /** Slow instances may rightly be left out for good: they do not answer in time. */
  readonly #mayBeTooSlow: boolean;
  /** Instances may come and go faster than all members answer. */
  readonly #mayBeOvertaken: boolean;
  #secret = "";
  #latest: KnownGroup | null = null;
  /** Superseded groups whose orders may still be under way, also those of previous managers. */
  #superseded: KnownGroup[] = [];

  constructor(groups: SimGroups, scenario: Scenario, violate: (what: string) => void) {
    this.#groups = groups;
    this.#latenessMs = ORDER_LATENESS_MS + stalledMs(scenario);
    this.#mayBeTooSlow = scenario.actions.some(({ type }) => type === "slow_link");
    this.#mayBeOvertaken = this.#mayBeTooSlow && scenario.scaling.enableScaling;
    this.#violate = violate;
  }

  /** A manager starts, without a group. Orders of the previous manager may still be under way. */
  begin(secret: string, nowMs: number): void {
    this.#secret = secret;
    this.#end(nowMs);
    this.#latest = null;
  }

  /** All members must serve, and must have reported that they are connected with all others in it. */
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

  /** An order is allowed only between two members of the same group. */
  noteOrder(sourceId: InstanceId, { destination }: MigrateOutOrder, nowMs: number): void {
    this.#superseded = this.#superseded.filter(({ endedMs }) =>
      nowMs - endedMs <= this.#latenessMs
    );
    const isAllowed = [this.#latest, ...this.#superseded].some((group) =>
      group?.members.includes(sourceId) && group.members.includes(destination.instanceId)
    );
    if (isAllowed) return;
    this.#violate(
      `${sourceId} is ordered to migrate to ${destination.instanceId}, and no group has both`,
    );
  }

  /**
   * What is wrong although nothing fails any more: all serving instances must be in the group, and all
   * of them must know that it is the latest.
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
    return [...missing, ...stale.map(({ name }) => `${name} is in a superseded migration group`)];
  }

  #end(nowMs: number): void {
    if (this.#latest === null) return;
    this.#latest.endedMs = nowMs;
    this.#superseded.push(this.#latest);
  }
}
