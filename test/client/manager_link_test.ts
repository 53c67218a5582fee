import assert from "node:assert/strict";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import type { Leadership } from "../../src/core/protocol/leadership.ts";
import type { InstanceList, ServedSettings } from "../../src/core/protocol/membership.ts";
import { ManagerLink, type ManagerLinkConfig } from "../../src/client/manager_link.ts";
import { registrationOf } from "../manager/support.ts";
import { rejection, until } from "../conformance/bus.ts";

Deno.test("manager link: a list that newer ones have overtaken changes nothing", async () => {
  const bus = new InProcessBus();
  const list = (version: number): InstanceList => ({
    version,
    instances: [],
    expectedInstances: 1,
  });
  const listener = await bus.listen("inproc:manager", {
    calls: {
      subscribe: (_, peer) => {
        for (const version of [4, 6, 5, 6, 7]) peer.notify("instances", { data: list(version) });
        return { data: null };
      },
    },
  });
  const lists: [version: number, isFirst: boolean][] = [];
  const link = await ManagerLink.connect({
    bus,
    clock: realClock,
    address: "inproc:manager",
    onList: ({ version }, isFirst) => lists.push([version, isFirst]),
    onQuery: () => ({ requests: [], numOmitted: 0 }),
  });
  await until(() => lists.length > 2);
  assert.deepEqual(lists, [[4, true], [6, false], [7, false]]);
  await link.close();
  await listener.close();
});

Deno.test("manager link: a manager whose leadership is over gives no list and no dispatch", async () => {
  const bus = new InProcessBus();
  let leadership: Leadership | undefined = { epoch: 5, leader: "b" };
  const superseded: Leadership[] = [];
  let numSubscribed = 0;
  const listener = await bus.listen("inproc:manager", {
    calls: {
      subscribe: (_, peer) => {
        numSubscribed++;
        const data = { version: numSubscribed, instances: [], expectedInstances: 1, leadership };
        peer.notify("instances", { data });
        return { data: null };
      },
      dispatch: () => ({ data: { instanceId: "instance-0", leadership } }),
    },
    notifications: { superseded: ({ data }) => void superseded.push(data) },
  });
  const lists: number[] = [];
  const link = await ManagerLink.connect({
    bus,
    clock: realClock,
    address: "inproc:manager",
    onList: ({ version }) => lists.push(version),
    onQuery: () => ({ requests: [], numOmitted: 0 }),
  });
  const request = { requestId: "r", promptTokens: 1 };
  assert.equal((await link.dispatch(request))?.instanceId, "instance-0");
  for (const old of [{ epoch: 4, leader: "a" }, undefined, { epoch: 5, leader: "c" }]) {
    leadership = old;
    assert.equal(await link.dispatch(request), null);
    const numBefore = numSubscribed;
    await until(() => numSubscribed > numBefore && superseded.length === 2);
    assert.deepEqual(superseded.splice(0), Array(2).fill({ epoch: 5, leader: "b" }));
    assert.deepEqual(lists.splice(0, lists.length - 1), []);
    leadership = { epoch: 5, leader: "b" };
    await until(() => lists.length === 2);
    lists.shift();
  }
  assert.equal((await link.dispatch(request))?.instanceId, "instance-0");
  await link.close();
  await listener.close();
});

Deno.test("manager link: leaves its manager for the one that leads, also one that it cannot reach yet", async () => {
  const bus = new InProcessBus();
  const listenAs = (name: string) =>
    bus.listen(`inproc:${name}`, {
      calls: {
        subscribe: (_, peer) => {
          peer.notify("instances", {
            data: { version: 1, instances: [], expectedInstances: 1 },
          });
          return { data: null };
        },
        dispatch: () => ({ data: { instanceId: name } }),
      },
    });
  const first = await listenAs("first");
  const lost: string[] = [];
  const link = await ManagerLink.connect({
    bus,
    clock: realClock,
    address: "inproc:first",
    onList: () => {},
    onQuery: () => ({ requests: [], numOmitted: 0 }),
    onLost: (reason) => lost.push(reason),
  });
  const place = async () =>
    (await link.dispatch({ requestId: "r", promptTokens: 1 }))?.instanceId ?? null;
  const untilPlaced = async (name: string) => {
    while (await place() !== name) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  assert.equal(await place(), "first");
  link.switchTo("inproc:first"); // there it is
  assert.deepEqual(lost, []);
  link.switchTo("inproc:second");
  assert.equal(await place(), null, "it has left at once");
  assert.equal(lost.length, 1);
  const second = await listenAs("second");
  await untilPlaced("second");
  const third = await listenAs("third");
  link.switchTo("inproc:nobody");
  link.switchTo("inproc:third");
  await untilPlaced("third");
  await link.close();
  for (const listener of [first, second, third]) await listener.close();
});

Deno.test("manager link: connects to the manager that leads while the host of the one before is silent", async () => {
  const inner = new InProcessBus();
  let isSilent = false, numAttempts = 0, numLists = 0;
  const bus: ManagerLinkConfig["bus"] = {
    listen: inner.listen.bind(inner),
    connect: (address, service) => {
      if (!isSilent || address !== "inproc:first") return inner.connect(address, service);
      numAttempts++;
      return new Promise(() => {});
    },
  };
  const listen = (name: string) =>
    bus.listen(`inproc:${name}`, {
      calls: {
        subscribe: (_, peer) => {
          peer.notify("instances", { data: { version: 1, instances: [], expectedInstances: 1 } });
          return { data: null };
        },
        dispatch: () => ({ data: { instanceId: name } }),
      },
    });
  const first = await listen("first"), second = await listen("second");
  const link = await ManagerLink.connect({
    bus,
    clock: realClock,
    address: "inproc:first",
    onList: () => numLists++,
    onQuery: () => ({ requests: [], numOmitted: 0 }),
  });
  isSilent = true;
  await first.close();
  await until(() => numAttempts === 1);
  link.switchTo("inproc:second");
  await until(() => numLists === 2);
  await link.call("subscribe", null, 1_000); // it is connected now
  const reply = await link.dispatch({ requestId: "r", promptTokens: 1 });
  assert.equal(reply?.instanceId, "second");
  await link.close();
  await second.close();
});

const settings: ServedSettings = { model: "test", dtype: "float32", maxModelLen: 1000 };

/** A manager that serves something, or whose only instance does. */
function listen(bus: InProcessBus, served: Partial<ServedSettings>, isKnown = true) {
  const registration = { ...registrationOf("instance-0", "inproc:instance-0"), ...served };
  const list: InstanceList = {
    version: 1,
    instances: isKnown ? [] : [registration],
    expectedInstances: 1,
    settings: isKnown ? { ...settings, ...served } : undefined,
  };
  return bus.listen("inproc:manager", {
    calls: {
      subscribe: (_, peer) => {
        peer.notify("instances", { data: list });
        return { data: null };
      },
      dispatch: () => ({ data: { instanceId: "instance-0" } }),
    },
  });
}

const difference = /^this API server has --model test, and its manager other: give both the same$/;

for (const isKnown of [true, false]) {
  const whose = isKnown ? "the manager" : "its instance";
  Deno.test(`manager link: ${whose} serves something else, at once or when it comes again`, async () => {
    const bus = new InProcessBus();
    const seen: string[] = [];
    const config: ManagerLinkConfig = {
      bus,
      clock: realClock,
      address: "inproc:manager",
      settings,
      onList: ({ settings, instances }) => seen.push((settings ?? instances[0]).model),
      onQuery: () => ({ requests: [], numOmitted: 0 }),
      onLost: () => seen.push("lost"),
      onSettingsMismatch: (reason) => seen.push(reason),
    };
    let manager = await listen(bus, { model: "other" }, isKnown);
    const error = await rejection(ManagerLink.connect(config));
    assert.equal(error.kind, "usage");
    assert.match(error.message, difference);
    await manager.close();

    manager = await listen(bus, {}, isKnown);
    const link = await ManagerLink.connect(config);
    assert.equal(link.settingsMismatch, null);
    const request = { requestId: "r", promptTokens: 1 };
    assert.deepEqual(await link.dispatch(request), { instanceId: "instance-0" });
    await manager.close();
    manager = await listen(bus, { model: "other" }, isKnown);
    await until(() => link.settingsMismatch !== null);
    assert.match(link.settingsMismatch!, difference);
    assert.equal(await link.dispatch(request), null);
    assert.match((await rejection(link.call("ping", null, 1_000))).message, difference);
    await new Promise((resolve) => setTimeout(resolve, 300)); // it is tried again, and told once
    await manager.close();
    manager = await listen(bus, {}, isKnown);
    await until(() => seen.length === 4);
    const [told] = seen.splice(2, 1);
    assert.match(told, difference);
    assert.deepEqual(seen, ["test", "lost", "test"]);
    await until(() => link.settingsMismatch === null);
    await link.close();
    await manager.close();
  });
}

Deno.test("manager link: after a handover the next manager is found at its own address", async () => {
  const bus = new InProcessBus();
  const first = await listen(bus, {});
  const lost: string[] = [];
  const link = await ManagerLink.connect({
    bus,
    clock: realClock,
    address: "inproc:manager",
    onList: () => {},
    onQuery: () => ({ requests: [], numOmitted: 0 }),
    onLost: (reason) => lost.push(reason),
  });
  let numSubscriptions = 0;
  const second = await bus.listen("inproc:successor", {
    calls: {
      subscribe: () => {
        numSubscriptions++;
        return { data: null };
      },
    },
  });
  link.moveTo("inproc:successor");
  assert.equal(numSubscriptions, 0); // the first one still serves
  await first.close();
  await until(() => numSubscriptions === 1);
  assert.equal(lost.length, 1);
  await link.close();
  await second.close();
});
