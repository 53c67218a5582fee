import assert from "node:assert/strict";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import type { InstanceList } from "../../src/core/messages.ts";
import { ManagerLink } from "../../src/manager/manager_link.ts";
import { until } from "../conformance/bus.ts";

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
