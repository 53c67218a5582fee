/** A manager that is one of several: it decides while it leads, and says in which epoch. */
import assert from "node:assert/strict";
import type { Peer, Service } from "../../src/bus/bus.ts";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import type { Leadership } from "../../src/core/protocol/leadership.ts";
import type { InstanceList } from "../../src/core/protocol/membership.ts";
import { Manager } from "../../src/manager/manager.ts";
import { managerOptions, registrationOf } from "./support.ts";
import { until } from "../conformance/bus.ts";

const leads: Leadership = { epoch: 3, leader: "m1" };

async function withManager(
  body: (world: {
    connect(service?: Service): Promise<Peer>;
    lead(leadership: Leadership | null): void;
    readonly superseded: Leadership[];
  }) => Promise<void>,
): Promise<void> {
  const bus = new InProcessBus();
  const superseded: Leadership[] = [];
  let leadership: Leadership | null = leads;
  const manager = await Manager.listen({
    bus,
    addresses: ["inproc:manager"],
    options: { ...managerOptions, initialInstances: 0 },
    launcher: { launch: () => Promise.reject(new Error("nothing is launched here")) },
    clock: realClock,
    stopTimeoutMs: 10,
    cluster: {
      processId: "m1",
      leadership: () => leadership,
      onSuperseded: (known) => superseded.push(known),
    },
  });
  try {
    await body({
      connect: (service = {}) => bus.connect("inproc:manager", service),
      lead: (now) => leadership = now,
      superseded,
    });
  } finally {
    leadership ??= leads;
    await manager.stop();
  }
}

Deno.test("manager of a cluster: each decision carries its leadership", () =>
  withManager(async ({ connect }) => {
    const orders: [string, Leadership | undefined][] = [];
    const order = (name: string) => ({ data }: { data: { leadership?: Leadership } }) =>
      void orders.push([name, data.leadership]);
    const instance = await connect({
      notifications: { shutdown: order("shutdown"), keep: order("keep") },
    });
    const join = { instanceId: "i", startedBy: "hand" } as const;
    const joined = await instance.call("join", { data: join });
    assert.deepEqual(joined.data.leadership, leads);
    await instance.call("register", { data: registrationOf("i", "inproc:i") });

    const lists: InstanceList[] = [];
    const server = await connect({
      notifications: { instances: ({ data }) => void lists.push(data) },
    });
    await server.call("subscribe", { data: null });
    const dispatch = { requestId: "r", promptTokens: 1 };
    const dispatched = await server.call("dispatch", { data: dispatch });
    assert.deepEqual(dispatched.data.leadership, leads);
    const drained = await instance.call("drain", { data: null });
    assert.deepEqual(drained.data, { mayDrain: true, leadership: leads });
    await until(() => lists.length >= 2); // it drains
    assert.deepEqual(lists.map(({ leadership }) => leadership), lists.map(() => leads));

    await server.call("admin_remove", { data: { instanceId: "i" } });
    await until(() => orders.length === 1);
    assert.deepEqual(orders, [["shutdown", leads]]);
  }));

Deno.test("manager of a cluster: decides nothing while another one leads", () =>
  withManager(async ({ connect, lead, superseded }) => {
    const orders: string[] = [];
    const instance = await connect({
      notifications: { shutdown: () => void orders.push("shutdown") },
    });
    const lists: InstanceList[] = [];
    const server = await connect({
      notifications: { instances: ({ data }) => void lists.push(data) },
    });
    await server.call("subscribe", { data: null });
    await instance.call("join", { data: { instanceId: "i", startedBy: "hand" } });
    await until(() => lists.length === 1);
    lead(null);
    await instance.call("register", { data: registrationOf("i", "inproc:i") });
    const refused = { kind: "unavailable", message: "this manager does not lead the cluster now" };
    const dispatch = { requestId: "r", promptTokens: 1 };
    await assert.rejects(server.call("dispatch", { data: dispatch }), refused);
    await assert.rejects(server.call("subscribe", { data: null }), refused);
    await assert.rejects(instance.call("drain", { data: null }), refused);
    const join = { instanceId: "j", startedBy: "hand" } as const;
    await assert.rejects((await connect()).call("join", { data: join }), refused);
    assert.deepEqual([orders, lists.length], [[], 1]);

    // What a receiver knows is passed on; the process is still told from others.
    server.notify("superseded", { data: { epoch: 4, leader: "m2" } });
    const { data } = await server.call("identify", { data: null });
    assert.deepEqual(data, { process: "m1" });
    assert.deepEqual(superseded, [{ epoch: 4, leader: "m2" }]);
  }));
