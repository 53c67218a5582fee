import assert from "node:assert/strict";
import type { Peer } from "../../../src/bus/bus.ts";
import { UnavailableError } from "../../../src/core/errors.ts";
import { MigrationPeers } from "../../../src/instance/llumlet/migration_peers.ts";
import { World } from "./world.ts";

async function linksOf() {
  const world = new World();
  const { node } = await world.add("a");
  const b = await world.add("b");
  const closed: Peer[] = [];
  const links = new MigrationPeers(node.bus, node.clock, (peer) => closed.push(peer));
  const open = () => world.wait(links.open(b.address, 1000));
  return { world, b, links, open, closed };
}

Deno.test("MigrationPeers: one connection for all uses, a new one when it is lost", async () => {
  const { world, open, closed } = await linksOf();
  const first = await open();
  assert.equal(await open(), first);
  world.network.breakConnections("a", "b");
  await world.until(() => closed.length === 1);
  assert.equal(closed[0], first);
  const second = await open();
  assert.notEqual(second, first);
  assert.ok(second.isOpen);
});

Deno.test("MigrationPeers: an idle connection is closed, one in use is not", async () => {
  const { world, open } = await linksOf();
  const peer = await open();
  await world.pass(50_000);
  await open();
  await world.pass(50_000);
  assert.ok(peer.isOpen);
  await world.pass(20_000);
  assert.ok(!peer.isOpen);
});

Deno.test("MigrationPeers: nobody there is an error, and tried again the next time", async () => {
  const { world, links, open, b } = await linksOf();
  await assert.rejects(world.wait(links.open("inproc:nobody", 1000)), UnavailableError);
  world.network.block("a", "b");
  await assert.rejects(world.wait(links.open(b.address, 1000)), UnavailableError);
  world.network.heal("a", "b");
  const peer = await open();
  await world.wait(links.close());
  assert.ok(!peer.isOpen);
});
