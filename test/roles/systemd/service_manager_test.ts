import assert from "node:assert/strict";
import { ServiceManager } from "../../../src/roles/systemd/service_manager.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";

const PID = 42;

async function pass(clock: VirtualClock, ms: number): Promise<void> {
  let isOver = false;
  clock.after(ms, () => isOver = true);
  await clock.runUntil(() => isOver);
}

/** A service manager with an environment and a clock of its own, and what it was told. */
function fixture(variables: Record<string, string | undefined>) {
  const clock = new VirtualClock();
  const sent: string[] = [];
  const environment = new Map(Object.entries(variables));
  const manager = new ServiceManager({
    environment: {
      get: (name) => environment.get(name),
      delete: (name) => void environment.delete(name),
    },
    clock,
    pid: PID,
    send: (path, text) => {
      assert.equal(path, "@notify");
      sent.push(text);
      return true;
    },
  });
  return { clock, sent, environment, manager, take: () => sent.splice(0) };
}

Deno.test("systemd: a start asks for more time until it is ready; then the watchdog is kept quiet", async () => {
  const { manager, clock, take, environment } = fixture({
    NOTIFY_SOCKET: "@notify",
    WATCHDOG_USEC: "10000000",
    WATCHDOG_PID: `${PID}`,
    OTHER: "x",
  });
  assert.deepEqual([...environment.keys()], ["OTHER"]); // instances get none of them
  manager.starting();
  await pass(clock, 12_000);
  const extension = "EXTEND_TIMEOUT_USEC=20000000\nSTATUS=starting";
  assert.deepEqual(take(), [extension, extension, extension]);
  manager.ready("serving m at\nhttp://h");
  await pass(clock, 11_000);
  const alive = "WATCHDOG=1";
  assert.deepEqual(take(), ["READY=1\nSTATUS=serving m at http://h", alive, alive, alive]);
  manager.stopping();
  await pass(clock, 6_000);
  assert.deepEqual(take().filter((text) => text !== alive), [
    "STOPPING=1",
    "EXTEND_TIMEOUT_USEC=20000000\nSTATUS=finishing requests",
    "EXTEND_TIMEOUT_USEC=20000000\nSTATUS=finishing requests",
  ]);
  manager[Symbol.dispose]();
  await pass(clock, 60_000);
  assert.deepEqual(take(), []);
});

Deno.test("systemd: a successor is the main process, and is watched in the place of this one", async () => {
  const { manager, clock, take } = fixture({ NOTIFY_SOCKET: "@notify", WATCHDOG_USEC: "2000000" });
  manager.ready("serving");
  take();
  assert.deepEqual(manager.environment, { NOTIFY_SOCKET: "@notify", WATCHDOG_USEC: "2000000" });
  manager.handOver(77);
  await pass(clock, 60_000);
  assert.deepEqual(take(), ["MAINPID=77"]);
});

Deno.test("systemd: without it, or with a watchdog for another process, there is nothing to tell", async () => {
  const alone = fixture({ WATCHDOG_USEC: "1000000" });
  alone.manager.starting();
  alone.manager.ready("serving");
  alone.manager.stopping();
  await pass(alone.clock, 10_000);
  assert.deepEqual(alone.take(), []);
  assert.deepEqual(alone.manager.environment, {});

  for (
    const watchdog of [
      { WATCHDOG_USEC: "1000000", WATCHDOG_PID: "1" },
      { WATCHDOG_USEC: "soon" },
      { WATCHDOG_USEC: "-5" },
    ]
  ) {
    const { manager, clock, take } = fixture({ NOTIFY_SOCKET: "@notify", ...watchdog });
    manager.ready("serving");
    await pass(clock, 10_000);
    assert.deepEqual(take(), ["READY=1\nSTATUS=serving"]);
  }
});
