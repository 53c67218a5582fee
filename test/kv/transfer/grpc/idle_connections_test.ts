import assert from "node:assert/strict";
import { VirtualClock } from "../../../../src/sim/clock/virtual_clock.ts";
import { IdleConnections } from "../../../../src/kv/transfer/grpc/idle_connections.ts";

/** Connections that say when they were ended. */
class Connections {
  readonly open = new Map<string, number>();
  readonly ended: string[] = [];

  list = () =>
    [...this.open].map(([inode, peerPort]) => ({
      inode,
      peerPort,
      end: () => {
        this.open.delete(inode);
        this.ended.push(inode);
      },
    }));
}

async function pass(clock: VirtualClock, ms: number): Promise<void> {
  let isOver = false;
  clock.after(ms, () => isOver = true);
  await clock.runUntil(() => isOver);
}

Deno.test("grpc server: a connection without a request is ended after ten seconds", async () => {
  const clock = new VirtualClock(), connections = new Connections();
  const idle = new IdleConnections({ clock, list: connections.list });
  connections.open.set("silent", 1);
  connections.open.set("busy", 2);
  const end = idle.begin(2);
  await pass(clock, 9_500);
  assert.deepEqual(connections.ended, []);
  await pass(clock, 3_000);
  assert.deepEqual(connections.ended, ["silent"]);
  await pass(clock, 60_000);
  assert.deepEqual([...connections.open.keys()], ["busy"]);
  end();
  await pass(clock, 9_500);
  assert.deepEqual([...connections.open.keys()], ["busy"], "it may send another request");
  await pass(clock, 3_000);
  assert.deepEqual(connections.ended, ["silent", "busy"]);
  idle.close();
});

Deno.test("grpc server: of too many silent connections the oldest are ended", async () => {
  const clock = new VirtualClock(), connections = new Connections();
  const idle = new IdleConnections({ clock, list: connections.list });
  for (let i = 0; i < 10; i++) connections.open.set(`old ${i}`, i);
  await pass(clock, 1_500);
  for (let i = 0; i < 64; i++) connections.open.set(`new ${i}`, 100 + i);
  await pass(clock, 1_000);
  assert.deepEqual(connections.ended, Array.from({ length: 10 }, (_, i) => `old ${i}`));
  idle.close();
});
