import assert from "node:assert/strict";
import { startInstances } from "../../src/roles/started_instances.ts";
import { UnavailableError } from "../../src/core/errors.ts";
import type { InstanceId } from "../../src/core/protocol/generate.ts";
import type { ExitStatus, LaunchRequest } from "../../src/manager/fleet/launcher.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";

/** Two instances that start, and what becomes of them. */
function startTwo() {
  const clock = new VirtualClock(0);
  const launched: LaunchRequest[] = [];
  const exits = [0, 1].map(() => Promise.withResolvers<ExitStatus>());
  const serving = [0, 1].map(() => Promise.withResolvers<void>());
  const indexOf = (instanceId: InstanceId) => Number(instanceId.at(-1));
  const started = startInstances({
    launcher: {
      launch: (request) => {
        launched.push(request);
        const { promise: exited } = exits[indexOf(request.instanceId)];
        return Promise.resolve({ pid: 1, exited, stop: () => {} });
      },
    },
    managerAddress: "inproc:manager",
    cluster: { untilServing: (instanceId) => serving[indexOf(instanceId)].promise },
    clock,
    count: 2,
  });
  let state = "pending";
  started.then(() => state = "started", () => state = "failed");
  return { clock, launched, exits, serving, started, state: () => state };
}

const killed: ExitStatus = { code: null, signal: "SIGKILL" };

Deno.test("started instances: all of them have to serve", async () => {
  const { clock, launched, serving, started, state } = startTwo();
  assert.deepEqual(launched.map(({ startedBy }) => startedBy), ["api-server", "api-server"]);
  serving[0].resolve();
  await clock.runUntil(() => state() !== "pending");
  assert.equal(state(), "pending");
  serving[1].resolve();
  await started;
});

Deno.test("started instances: one that ends as soon as it has served is the manager's", async () => {
  const { clock, exits, serving, started, state } = startTwo();
  serving[0].resolve();
  exits[1].resolve(killed);
  clock.after(100, () => serving[1].resolve()); // the manager's word comes late
  await clock.runUntil(() => state() !== "pending");
  await started;
});

Deno.test("started instances: one that ends before is a start that failed", async () => {
  const { clock, exits, serving, started, state } = startTwo();
  serving[0].resolve();
  exits[1].resolve(killed);
  await clock.runUntil(() => state() !== "pending");
  await assert.rejects(
    started,
    (error) =>
      error instanceof UnavailableError &&
      /instance-api-\d+-1 ended with SIGKILL before it served/.test(error.message),
  );
});
