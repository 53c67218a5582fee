import assert from "node:assert/strict";
import type { Peer } from "../../../src/bus/bus.ts";
import { UnavailableError } from "../../../src/core/errors.ts";
import type { FailedPeer, MigrationGroup } from "../../../src/core/protocol/migration.ts";
import { soleAuthority } from "../../../src/manager/authority.ts";
import { ManagedInstance } from "../../../src/manager/fleet/managed_instance.ts";
import {
  type FormedGroup,
  GroupKeeper,
  membersToLeaveOut,
} from "../../../src/manager/migration/migration_group.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { registrationOf } from "../support.ts";

type Answer = (group: MigrationGroup) => Promise<readonly FailedPeer[]>;

const fine: Answer = () => Promise.resolve([]);

class World {
  readonly clock = new VirtualClock();
  readonly instances: ManagedInstance[] = [];
  readonly formed: FormedGroup[] = [];
  readonly keeper = new GroupKeeper({
    clock: this.clock,
    options: { secret: "s", initTimeoutMs: 1_000 },
    authority: soleAuthority,
    instances: () => this.instances,
    onFormed: (group) => this.formed.push(group),
  });

  add(instanceId: string, answer: Answer = fine): ManagedInstance {
    const instance = new ManagedInstance(instanceId, "both");
    const peer = {
      call: async (_method: string, { data }: { data: MigrationGroup }) => ({
        data: { failedPeers: await answer(data) },
      }),
    } as unknown as Peer;
    instance.join({ instanceId }, peer);
    instance.register({
      ...registrationOf(instanceId, `inproc:${instanceId}`),
      migration: { backend: "gloo", endpoint: { host: "127.0.0.1", port: instanceId.length } },
    }, 0);
    this.instances.push(instance);
    this.keeper.update();
    return instance;
  }

  remove(instance: ManagedInstance): void {
    this.instances.splice(this.instances.indexOf(instance), 1);
    this.keeper.update();
  }

  async settle(): Promise<FormedGroup> {
    for (let i = 0; i < 50; i++) await Promise.resolve();
    return this.formed.at(-1)!;
  }

  ready(): string[] {
    return this.instances.map(({ instanceId }) => instanceId)
      .filter((id) => this.keeper.isReady(id));
  }
}

Deno.test("migration group: a new generation with ranks whenever members come or go", async () => {
  const world = new World();
  const groups: MigrationGroup[] = [];
  world.add("a", (group) => Promise.resolve((groups.push(group), [])));
  await world.settle();
  const b = world.add("b");
  await world.settle();
  world.add("c");
  await world.settle();
  assert.deepEqual(groups.map(({ generation }) => generation), [1, 2, 3]);
  assert.equal(groups[2].secret, "s");
  assert.deepEqual(groups[2].members.map(({ instanceId, rank }) => [instanceId, rank]), [
    ["a", 0],
    ["b", 1],
    ["c", 2],
  ]);
  assert.deepEqual(world.ready(), ["a", "b", "c"]);
  world.remove(b);
  assert.deepEqual(world.ready(), ["a", "c"], "the others go on meanwhile");
  assert.deepEqual(await world.settle(), { generation: 4, members: ["a", "c"], leftOut: [] });
  world.keeper.update();
  await world.settle();
  assert.equal(world.formed.length, 4, "no change, no generation");
});

Deno.test("migration group: a member that comes while one is formed is in the next", async () => {
  const world = new World();
  const gate = Promise.withResolvers<FailedPeer[]>();
  let isFirst = true;
  world.add("a", () => isFirst ? (isFirst = false, gate.promise) : Promise.resolve([]));
  world.add("b");
  await world.settle();
  assert.deepEqual(world.ready(), []);
  gate.resolve([]);
  assert.deepEqual(await world.settle(), { generation: 2, members: ["a", "b"], leftOut: [] });
});

Deno.test("migration group: who does not answer is left out, and tried again", async () => {
  const world = new World();
  let isBroken = true;
  world.add("a");
  world.add(
    "b",
    () => isBroken ? Promise.reject(new UnavailableError("no answer")) : Promise.resolve([]),
  );
  world.add("c");
  const { members, leftOut } = await world.settle();
  assert.deepEqual(members, ["a", "c"]);
  assert.deepEqual(leftOut, [{ instanceId: "b", reason: "no answer" }]);
  isBroken = false;
  assert.ok(world.clock.step());
  assert.deepEqual((await world.settle()).members, ["a", "b", "c"]);
  assert.equal(world.clock.nowMs(), 10_000);
  assert.ok(!world.clock.step());
});

Deno.test("migration group: instances without migration, or without connection, are no members", async () => {
  const world = new World();
  world.add("a");
  const lost = world.add("b");
  await world.settle();
  lost.disconnect();
  world.keeper.update();
  assert.deepEqual((await world.settle()).members, ["a"]);
});

Deno.test("migration group: a stopped keeper asks nobody", async () => {
  const world = new World();
  world.keeper.stop();
  world.add("a");
  await world.settle();
  assert.deepEqual(world.formed, []);
});

Deno.test("left out are those without whom all others are connected", () => {
  const failed = (...ids: string[]) => ids.map((id) => ({ instanceId: id, reason: `no ${id}` }));
  assert.deepEqual(membersToLeaveOut([["a", []], ["b", []]]), []);
  // Nobody reaches c: it is at fault.
  assert.deepEqual(
    membersToLeaveOut([["a", failed("c")], ["b", failed("c")], ["c", []], ["d", failed("c")]]),
    [{ instanceId: "c", reason: "no c" }],
  );
  // c does not answer: that others do not reach it is no fault of theirs.
  assert.deepEqual(
    membersToLeaveOut([["a", failed("c")], ["b", failed("c")], ["c", "it hangs"]]),
    [{ instanceId: "c", reason: "it hangs" }],
  );
  // Of two that do not reach each other the later goes.
  assert.deepEqual(
    membersToLeaveOut([["a", failed("b")], ["b", failed("a")], ["c", []]]),
    [{ instanceId: "b", reason: "no b" }],
  );
  assert.deepEqual(
    membersToLeaveOut([
      ["a", failed("b", "c", "d")],
      ["b", failed("a")],
      ["c", failed("a", "d")],
      ["d", []],
    ])
      .map(({ instanceId }) => instanceId),
    ["a", "d"],
  );
});
