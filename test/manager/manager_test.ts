import assert from "node:assert/strict";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { openBus } from "../../src/bus/open_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import { ModelError } from "../../src/core/errors.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import type { InstanceList } from "../../src/core/protocol/membership.ts";
import { noMigration } from "../../src/manager/migration/migration_loop.ts";
import { Manager, type ManagerConfig } from "../../src/manager/manager.ts";
import type { ManagerEvent } from "../../src/manager/manager_event.ts";
import { rejection, until } from "../conformance/bus.ts";
import {
  idleInfo,
  managerOptions,
  registrationOf,
  ScriptedInstance,
  ScriptedLauncher,
} from "./support.ts";

interface World {
  readonly bus: InProcessBus;
  readonly manager: Manager;
  readonly instances: ScriptedInstance[];
  readonly events: ManagerEvent[];
}

async function withManager(
  body: (world: World) => Promise<void>,
  onLaunch?: (instance: ScriptedInstance) => Promise<void>,
  overrides: Partial<ManagerConfig> = {},
): Promise<void> {
  const bus = new InProcessBus();
  const launcher = new ScriptedLauncher(bus, onLaunch);
  const events: ManagerEvent[] = [];
  const manager = await Manager.listen({
    bus,
    addresses: ["inproc:manager"],
    options: managerOptions,
    launcher,
    clock: realClock,
    onEvent: (event) => events.push(event),
    ...overrides,
  });
  try {
    await body({ bus, manager, instances: launcher.instances, events });
  } finally {
    await manager.stop();
  }
}

const eventTypes = (events: ManagerEvent[]) => events.map(({ type }) => type);

Deno.test("manager: starts the initial instances and knows them once they serve", () =>
  withManager(async ({ manager, events }) => {
    assert.deepEqual(manager.instances(), []);
    await manager.startInstances();
    const ids = manager.instances().map(({ instanceId }) => instanceId);
    assert.deepEqual(ids, ["instance-0", "instance-1"]);
    assert.deepEqual(eventTypes(events).sort(), [
      "launched",
      "launched",
      "registered",
      "registered",
    ]);
  }));

Deno.test("manager: passes on the progress of a starting instance", () =>
  withManager(async ({ manager, events }) => {
    await manager.startInstances();
    const progress = events.find((event) => event.type === "progress");
    assert.deepEqual(progress, {
      type: "progress",
      progress: {
        instanceId: "instance-0",
        phase: "weights",
        doneBytes: 1,
        totalBytes: 2,
        detail: "",
      },
    });
  }, async (instance) => {
    await instance.join();
    const progress = { phase: "weights", doneBytes: 1, totalBytes: 2, detail: "" };
    instance.manager.notify("progress", { data: { instanceId: instance.id, ...progress } });
    await instance.register();
  }));

Deno.test("manager: an instance that fails to start fails the start with its own error", () =>
  withManager(async ({ manager }) => {
    const error = await rejection(manager.startInstances());
    assert.ok(error instanceof ModelError);
    assert.equal(error.message, "instance-1 could not start: no config.json in model");
  }, async (instance) => {
    await instance.join();
    if (instance.id === "instance-0") return instance.register();
    instance.fail({ kind: "model", message: "no config.json in model" });
    await instance.exit({ code: 2, signal: null });
  }));

Deno.test("manager: an instance that ends in silence fails the start with its exit status", () =>
  withManager(async ({ manager }) => {
    const error = await rejection(manager.startInstances());
    assert.match(error.message, /instance-\d was ended by SIGSEGV before it was ready/);
  }, async (instance) => {
    await instance.join();
    await instance.exit({ code: null, signal: "SIGSEGV" });
  }));

Deno.test("manager: an instance that cannot be launched fails the start", () =>
  withManager(
    async ({ manager }) => {
      await assert.rejects(manager.startInstances(), /no such program/);
    },
    undefined,
    { launcher: { launch: () => Promise.reject(new Error("no such program")) } },
  ));

Deno.test("manager: dispatches round robin to those that serve", () =>
  withManager(async ({ bus, manager, instances, events }) => {
    const frontend = await bus.connect("inproc:manager", {});
    const dispatch = async () => {
      const request = { requestId: "r", promptTokens: 1 };
      const { data } = await frontend.call("dispatch", { data: request });
      return data.instanceId;
    };
    assert.equal((await rejection(dispatch())).kind, "unavailable");
    await manager.startInstances();
    assert.deepEqual([await dispatch(), await dispatch(), await dispatch()], [
      "instance-0",
      "instance-1",
      "instance-0",
    ]);
    await instances[1].exit({ code: null, signal: "SIGKILL" });
    await until(() => manager.instances().length === 1);
    assert.deepEqual([await dispatch(), await dispatch()], ["instance-0", "instance-0"]);
    assert.equal(events.filter(({ type }) => type === "dispatched").length, 5);
  }));

Deno.test("manager: an instance that fails gets no more requests, and does not come back", () =>
  withManager(async ({ bus, manager, instances, events }) => {
    await manager.startInstances();
    const frontend = await bus.connect("inproc:manager", {});
    const dispatch = async () => {
      const data = { requestId: "r", promptTokens: 1, priority: "normal" };
      return (await frontend.call("dispatch", { data })).data;
    };
    instances[0].fail({ kind: "internal", message: "a step did not end" });
    for (let i = 0; i < 3; i++) assert.equal((await dispatch()).instanceId, "instance-1");
    assert.equal(manager.instances().length, 2, "what it has sent is still delivered");
    await instances[0].manager.close();
    await until(() => eventTypes(events).includes("lost"));
    const { reason } = events.find((event) => event.type === "lost")!;
    assert.equal(reason, "instance-0 failed: a step did not end");
  }));

Deno.test("manager: tells subscribers at once, and of every change", () =>
  withManager(async ({ bus, manager, instances, events }) => {
    await manager.startInstances();
    const lists: InstanceList[] = [];
    const frontend = await bus.connect("inproc:manager", {
      notifications: { instances: ({ data }) => void lists.push(data) },
    });
    await frontend.call("subscribe", { data: null });
    assert.equal(lists.length, 1);
    assert.equal(lists[0].instances.length, 2);
    await instances[0].exit({ code: 1, signal: null });
    await until(() => lists.length === 2);
    assert.deepEqual(lists[1].instances.map(({ instanceId }) => instanceId), ["instance-1"]);
    assert.equal(lists[1].expectedInstances, 2);
    await until(() => eventTypes(events).includes("lost"));
    assert.deepEqual(events.at(-1), {
      type: "lost",
      instanceId: "instance-0",
      reason: "instance-0 exited with code 1",
    });
  }));

Deno.test("manager: kills an instance that only lost its connection", () =>
  withManager(
    async ({ manager, instances }) => {
      await manager.startInstances();
      await instances[0].manager.close();
      await until(() => manager.instances().length === 1);
      await until(() => instances[0].signals.length > 0);
      assert.deepEqual(instances[0].signals, ["SIGKILL"]);
    },
    undefined,
    { rejoinWaitMs: 5 },
  ));

/** Has the manager dispatch requests, and gives the instance of each. */
async function dispatchBy(bus: InProcessBus): Promise<(requestId: string) => Promise<string>> {
  const frontend = await bus.connect("inproc:manager", {});
  return async (requestId) => {
    const { data } = await frontend.call("dispatch", { data: { requestId, promptTokens: 16 } });
    return data.instanceId;
  };
}

Deno.test("manager: keeps the newest report of each instance, and the requests that older ones tell of", () =>
  withManager(
    async ({ bus, manager, instances }) => {
      await manager.startInstances();
      const dispatch = await dispatchBy(bus);
      const of = { "instance-0": [] as string[], "instance-1": [] as string[] };
      for (const id of ["a", "b"]) of[await dispatch(id) as keyof typeof of].push(id);
      const report = (timestampMs: number, receivedRequestIds: readonly string[] = []) => {
        const data = idleInfo("instance-1", {
          timestampMs,
          stepId: timestampMs,
          usedBlocks: timestampMs === 2 ? 50 : 0,
          freeBlocks: timestampMs === 2 ? 50 : 100,
          receivedRequestIds,
        });
        instances[1].manager.notify("info", { data });
      };
      report(1);
      report(3);
      report(2, of["instance-1"]); // overtaken
      await until(() => manager.infos()[0]?.receivedRequestIds.length === 1);
      assert.deepEqual(manager.infos().map(({ stepId, usedBlocks }) => [stepId, usedBlocks]), [
        [3, 0],
      ]);
      assert.equal(await dispatch("c"), "instance-1");
    },
    undefined,
    { options: { ...managerOptions, dispatchPolicy: "load" } },
  ));

Deno.test("manager: refuses instances that it did not start, and a second of the same name", () =>
  withManager(async ({ bus, manager }) => {
    await manager.startInstances();
    for (const instanceId of ["stranger", "instance-0"]) {
      const peer = await bus.connect("inproc:manager", {});
      const error = await rejection(peer.call("join", { data: { instanceId } }));
      assert.match(error.message, new RegExp(`does not expect an instance "${instanceId}"`));
      await peer.close();
    }
    assert.equal(manager.instances().length, 2);
  }));

Deno.test("manager: an instance that joins twice over one connection is there once", () =>
  withManager(async ({ manager, instances }) => {
    await manager.startInstances();
    await instances[0].manager.call("join", { data: { instanceId: "instance-0" } });
    assert.equal(manager.instances().length, 2);
    assert.ok(instances[0].manager.isOpen);
  }));

Deno.test("manager: stop asks first, and kills those that do not stop", async () => {
  await withManager(
    async ({ manager, instances, events }) => {
      await manager.startInstances();
      instances[1].isStubborn = true;
      await manager.stop();
      assert.deepEqual(instances.map(({ signals }) => signals), [[], ["SIGKILL"]]);
      assert.ok(!eventTypes(events).includes("lost"), "stopping is no loss");
    },
    undefined,
    { stopTimeoutMs: 5 },
  );
});

Deno.test("manager: stop during the start ends instances that have not joined", () =>
  withManager(async ({ manager, instances }) => {
    const start = rejection(manager.startInstances());
    await until(() => instances.length === 2);
    await manager.stop();
    assert.match((await start).message, /was ended by SIGTERM before it was ready/);
    assert.deepEqual(instances.map(({ signals }) => signals), [["SIGTERM"], ["SIGTERM"]]);
  }, () => Promise.resolve()));

Deno.test("manager: starts nothing once it stops", () =>
  withManager(async ({ manager, instances }) => {
    await manager.startInstances();
    const stopped = manager.stop();
    assert.equal((await rejection(manager.addInstance())).kind, "unavailable");
    await stopped;
    assert.equal((await rejection(manager.addInstance())).kind, "unavailable");
    assert.equal(instances.length, 2);
  }));

Deno.test("manager: dispatches by load, counting what it sent and has not heard of", () =>
  withManager(
    async ({ bus, manager, instances }) => {
      await manager.startInstances();
      const dispatch = await dispatchBy(bus);
      const burst = await Promise.all(["a", "b", "c", "d"].map(dispatch));
      assert.equal(burst.filter((id) => id === "instance-0").length, 2);
      // instance-0 has done with its requests, instance-1 says nothing.
      const idle = idleInfo("instance-0", { receivedRequestIds: ["a", "b", "c", "d"] });
      instances[0].manager.notify("info", { data: idle });
      await until(() => manager.infos().length === 1);
      assert.deepEqual([await dispatch("e"), await dispatch("f")], ["instance-0", "instance-0"]);
    },
    undefined,
    { options: { ...managerOptions, dispatchPolicy: "load" } },
  ));

Deno.test("manager: new requests go to the first instances only, and to the next when one goes", () =>
  withManager(
    async ({ bus, manager, instances }) => {
      await manager.startInstances();
      const frontend = await bus.connect("inproc:manager", {});
      const dispatch = async () => {
        const { data } = await frontend.call("dispatch", {
          data: { requestId: crypto.randomUUID(), promptTokens: 16 },
        });
        return data.instanceId;
      };
      assert.deepEqual([await dispatch(), await dispatch()], ["instance-0", "instance-0"]);
      await instances[0].exit({ code: null, signal: "SIGKILL" });
      await until(() => manager.instances().length === 1);
      assert.equal(await dispatch(), "instance-1");
    },
    undefined,
    { options: { ...managerOptions, dispatchPolicy: "load", numDispatchInstances: 1 } },
  ));

Deno.test("manager: an instance with another migration backend serves, and is in no group", () =>
  withManager(
    async ({ manager, events }) => {
      await manager.startInstances();
      await until(() => eventTypes(events).includes("group_formed"));
      assert.equal(manager.instances().length, 2);
      const apart = events.filter(({ type }) => type === "not_migrating");
      assert.equal(apart.length, 1);
      assert.match(
        JSON.stringify(apart),
        /instance-1.*backend is rayrpc, but this service's is test/,
      );
      const formed = events.find((event) => event.type === "group_formed")!;
      assert.deepEqual(formed.members.concat(formed.leftOut.map((one) => one.instanceId)), [
        "instance-0",
      ]);
    },
    async (instance) => {
      const backend = instance.id === "instance-1" ? "rayrpc" : "test";
      instance.settings = { migration: { backend, endpoint: {} } };
      await instance.join();
      await instance.register();
    },
    {
      migration: { ...noMigration, enableMigration: true },
      migrationCompatibility: { backend: "test", blockSize: 16 },
      migrationGroup: { secret: "s", initTimeoutMs: 1_000 },
    },
  ));

for (const without of [null, "instance-0", "instance-1"]) {
  Deno.test(`manager: requests are to leave a prefill instance, unless ${without ?? "nobody"} has no migration`, () =>
    withManager(
      async ({ bus, manager }) => {
        await manager.startInstances();
        await until(() => manager.instances().length === 2);
        const frontend = await bus.connect("inproc:manager", {});
        const { data } = await frontend.call("dispatch", {
          data: { requestId: "a", promptTokens: 16 },
        });
        const { instanceId, expectedSteps } = data;
        assert.deepEqual(
          { instanceId, expectedSteps },
          { instanceId: "instance-0", expectedSteps: without === null ? 1 : undefined },
        );
      },
      async (instance) => {
        const instanceType = instance.id === "instance-0" ? "prefill" : "decode";
        const migration = { backend: "test", endpoint: {} };
        const migrates = instance.id !== without;
        instance.settings = { instanceType, migration: migrates ? migration : undefined };
        await instance.join();
        await instance.register();
      },
      {
        options: { ...managerOptions, dispatchPolicy: "load", numDispatchInstances: 1 },
        migration: { ...noMigration, enableMigration: true, enablePdDisagg: true },
        migrationCompatibility: { backend: "test", blockSize: 16 },
      },
    ));
}

/** One that the manager did not start. */
function unlaunched(bus: InProcessBus, instanceId: string): ScriptedInstance {
  const managerAddress = "inproc:manager";
  return new ScriptedInstance(bus, {
    instanceId,
    managerAddress,
    numBlocks: null,
    startedBy: "manager",
  });
}

const settings = { model: "test", dtype: "float32", maxModelLen: 1000 };

for (
  const [other, reason] of [
    [{ model: "other" }, /by-hand has --model other, and (instance-0|this manager) test/],
    [{ dtype: "float16" }, /by-hand has --dtype float16, and (instance-0|this manager) float32/],
    [{ maxModelLen: 100 }, /by-hand has --max-model-len 100, and (instance-0|this manager) 1000/],
  ] as const
) {
  for (const known of [settings, undefined]) {
    const whose = known ? "its own" : "its instances'";
    Deno.test(`manager: refuses an instance with another ${Object.keys(other)} than ${whose}`, () =>
      withManager(
        async ({ bus, manager, events }) => {
          await manager.startInstances();
          const stranger = unlaunched(bus, "by-hand");
          stranger.settings = other;
          await stranger.join({ startedBy: "hand" });
          const error = await rejection(stranger.register());
          assert.match(error.message, reason);
          assert.deepEqual(events.filter(({ type }) => type === "refused"), [
            { type: "refused", instanceId: "by-hand", reason: error.message },
          ]);
          await stranger.exit({ code: 2, signal: null });
          await until(() => manager.numInstances === 2);
          assert.equal(manager.instances().length, 2);
        },
        undefined,
        { settings: known },
      ));
  }
}

Deno.test("manager: does not begin where instances serve something else, and lets them go on", async () => {
  const bus = new InProcessBus();
  const launcher = new ScriptedLauncher(bus);
  const survivors = ["instance-0", "instance-1"].map((id) => unlaunched(bus, id));
  const killed: string[] = [];
  const manager = await Manager.listen({
    bus,
    addresses: ["inproc:manager"],
    options: managerOptions,
    settings: { ...settings, model: "new" },
    launcher: Object.assign(launcher, { killOrphan: (id: string) => killed.push(id) > 0 }),
    clock: realClock,
  });
  const recovery = rejection(manager.recoverInstances(survivors.map(({ id }) => id)));
  for (const survivor of survivors) {
    const registration = registrationOf(survivor.id, `inproc:${survivor.id}`);
    await rejection(survivor.join({ isRunning: true, registration }));
  }
  const { kind, message } = await recovery;
  assert.equal(kind, "usage");
  assert.match(message, /instance-0 has --model test, and this manager new/);
  assert.match(message, /end them first: instance-0 \(process 1\), instance-1 \(process 1\)/);
  await manager.stop();
  assert.deepEqual([killed, launcher.instances], [[], []]);
  for (const { signals } of survivors) assert.deepEqual(signals, []);
});

Deno.test("manager: who is ready only as requests are finished takes none", () =>
  withManager(async ({ bus, manager, instances }) => {
    await manager.startInstances();
    const adding = manager.addInstance();
    await until(() => instances.length === 3);
    const finishing = manager.finishRequests(200);
    await instances[2].join();
    await instances[2].register();
    await adding;
    const frontend = await bus.connect("inproc:manager", {});
    const dispatch = frontend.call("dispatch", { data: { requestId: "a", promptTokens: 16 } });
    assert.equal((await rejection(dispatch)).kind, "unavailable");
    await finishing;
  }, async (instance) => {
    if (instance.id === "instance-2") return;
    await instance.join();
    await instance.register();
  }));

Deno.test("manager: one that comes after another goes on when what it starts is killed", () => {
  let numLaunched = 0;
  return withManager(async ({ manager, events }) => {
    await manager.recoverInstances([]);
    await until(() => manager.instances().length === 1);
    assert.ok(eventTypes(events).includes("lost"));
  }, async (instance) => {
    const isFirst = numLaunched++ === 0;
    await instance.join();
    if (isFirst) await instance.exit({ code: null, signal: "SIGKILL" });
    else await instance.register();
  }, { options: { ...managerOptions, initialInstances: 1 } });
});

Deno.test("manager: refuses an address in use", async () => {
  const bus = new InProcessBus();
  const config: ManagerConfig = {
    bus,
    addresses: ["inproc:free", "inproc:used"],
    options: managerOptions,
    launcher: new ScriptedLauncher(bus),
    clock: realClock,
  };
  await bus.listen("inproc:used", {});
  assert.equal((await rejection(Manager.listen(config))).kind, "unavailable");
  await (await bus.listen("inproc:free", {})).close();
});

Deno.test("manager: a report that does not fit costs an instance its connection, and nothing else", async () => {
  const directory = Deno.makeTempDirSync();
  const address = `unix:${directory}/manager.sock`;
  const bus = openBus();
  const manager = await Manager.listen({
    bus,
    addresses: [address],
    options: managerOptions,
    launcher: { launch: () => Promise.reject(new Error("instances join by themselves")) },
    clock: realClock,
    rejoinWaitMs: 50,
  });
  const join = async (instanceId: string) => {
    const peer = await bus.connect(address, {
      notifications: { shutdown: (_, peer) => void peer.close() },
    });
    await peer.call("join", { data: { instanceId, startedBy: "hand" } });
    await peer.call("register", {
      data: registrationOf(instanceId, `unix:${directory}/${instanceId}.sock`),
    });
    return peer;
  };
  try {
    const good = await join("good");
    const reports = [
      { ...idleInfo("bad-0"), freeBlocks: -1 },
      idleInfo("good"),
      { ...idleInfo("bad-2"), totals: {} },
    ];
    for (const [i, info] of reports.entries()) {
      const bad = await join(`bad-${i}`);
      bad.notify("info", { data: info as InstanceInfo });
      await until(() => !bad.isOpen && manager.instances().length === 1);
    }
    good.notify("info", { data: idleInfo("good") });
    await good.call("ping", { data: null });
    assert.deepEqual(manager.infos().map(({ instanceId }) => instanceId), ["good"]);
  } finally {
    await manager.stop();
    Deno.removeSync(directory, { recursive: true });
  }
});
