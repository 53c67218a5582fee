import assert from "node:assert/strict";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import { logger } from "../../src/core/log.ts";
import type { RequestOutput } from "../../src/core/protocol/generate.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import type { Executor, ExecutorSpec, OnProgress } from "../../src/executor/executor.ts";
import { loadNullExecutor } from "../../src/executor/null/null_executor.ts";
import { serveInstance } from "../../src/roles/instance.ts";
import { ClusterClient } from "../../src/client/cluster_client.ts";
import type { ExitStatus } from "../../src/manager/fleet/launcher.ts";
import { Manager } from "../../src/manager/manager.ts";
import type { ManagerEvent } from "../../src/manager/manager_event.ts";
import { rejection, until } from "../conformance/bus.ts";
import { engineOptions, generateRequest } from "../instance/support.ts";

type Load = (spec: ExecutorSpec, onProgress: OnProgress) => Promise<Executor>;

interface World {
  readonly bus: InProcessBus;
  readonly manager: Manager;
  readonly events: ManagerEvent[];
  readonly exits: Promise<ExitStatus>[];
  /** What the instances log, debug aside. */
  readonly logged: string[];
}

/** A manager whose instances run in this process, on `load`'s executors. */
async function withInstances(
  load: Load,
  body: (world: World) => Promise<void>,
  { options = {}, initialInstances = 1 }: {
    options?: Partial<EngineOptions>;
    initialInstances?: number;
  } = {},
): Promise<void> {
  const bus = new InProcessBus();
  const events: ManagerEvent[] = [];
  const exits: Promise<ExitStatus>[] = [];
  const logged: string[] = [];
  const append = (message: string) => void logged.push(message);
  const log = { debug: () => {}, info: append, warn: append, error: append };
  const manager = await Manager.listen({
    bus,
    addresses: ["inproc:manager"],
    options: {
      initialInstances,
      loadMetric: "remaining_steps",
      dispatchPolicy: "rr",
      numDispatchInstances: null,
      priorityHeadroomBlocks: null,
      pollingInterval: 0.01,
      disableLogRequestsManager: true,
    },
    launcher: {
      launch(request) {
        const exited = serveInstance({
          ...request,
          options: engineOptions(options),
          hostShare: initialInstances,
          log,
          bus,
          loadExecutor: load,
        }).then((code) => ({ code, signal: null }));
        exits.push(exited);
        return Promise.resolve({ pid: Deno.pid, exited, stop: () => {} });
      },
    },
    clock: realClock,
    onEvent: (event) => events.push(event),
  });
  try {
    await body({ bus, manager, events, exits, logged });
  } finally {
    await manager.stop();
  }
}

/** Loads the null executor; `onClose` is called as it closes. */
async function loadAndWatch(spec: ExecutorSpec, onClose: () => void): Promise<Executor> {
  const executor = await loadNullExecutor(spec);
  return {
    info: executor.info,
    pool: executor.pool,
    step: (input) => executor.step(input),
    close: () => {
      onClose();
      return executor.close();
    },
  };
}

async function run(bus: InProcessBus, maxTokens: number): Promise<RequestOutput[]> {
  const client = await ClusterClient.connect({
    bus,
    managerAddress: "inproc:manager",
    frontendId: "f",
    clock: realClock,
  });
  const outputs: RequestOutput[] = [];
  await client.submit(generateRequest("a", 5, { maxTokens }), (output) => outputs.push(output));
  await until(() => outputs.at(-1)?.finish !== undefined);
  await client.close();
  return outputs;
}

Deno.test("instance: joins, shows progress, serves, reports, and stops when asked", () =>
  withInstances(async (spec, onProgress) => {
    for (let doneBytes = 0; doneBytes <= 1000; doneBytes++) {
      onProgress({ phase: "weights", doneBytes, totalBytes: 1000, detail: "model" });
    }
    return await loadNullExecutor(spec);
  }, async ({ bus, manager, events, exits }) => {
    await manager.startInstances();
    const [registration] = manager.instances();
    assert.equal(registration.address, "inproc:instance-0");
    assert.equal(registration.totalBlocks, 16384);
    const progress = events.flatMap((event) => event.type === "progress" ? event.progress : []);
    assert.deepEqual(progress[0], {
      instanceId: "instance-0",
      phase: "weights",
      doneBytes: 0,
      totalBytes: 1000,
      detail: "model",
    });
    assert.ok(progress.length < 100, "progress is thinned out");
    const outputs = await run(bus, 20);
    assert.deepEqual(outputs.map(({ index }) => index), Array.from({ length: 20 }, (_, i) => i));
    // Only one report names the finished request, and the next one may replace it at once.
    await until(() => manager.infos()[0]?.totals.outputTokens === 20);
    await until(() => manager.infos()[0].runningRequests === 0);
    await manager.stop();
    assert.equal((await exits[0]).code, 0);
  }));

Deno.test("instance: an executor that fails ends the instance with the reason; its request goes on", () =>
  withInstances(async (spec) => {
    const executor = await loadNullExecutor(spec);
    let steps = 0;
    return {
      info: executor.info,
      pool: executor.pool,
      close: () => executor.close(),
      step: (input) =>
        steps++ < 3 ? executor.step(input) : Promise.reject(new Error("out of memory")),
    };
  }, async ({ bus, manager, events, exits }) => {
    await manager.startInstances();
    const outputs = await run(bus, 20);
    assert.equal(outputs.flatMap(({ tokenIds }) => tokenIds).length, 5 * 3);
    assert.match(outputs.at(-1)!.finish!.error!.message, /out of memory.*5 instances in a row/);
    assert.equal((await exits[0]).code, 1);
    assert.deepEqual(events.find(({ type }) => type === "lost"), {
      type: "lost",
      instanceId: "instance-0",
      reason: "instance-0 failed: out of memory",
    });
  }));

Deno.test("instance: options that contradict the model are the user's error; nothing stays open", async () => {
  let closed = 0;
  await withInstances(
    (spec) => loadAndWatch(spec, () => closed++),
    async ({ manager, exits, logged }) => {
      const error = await rejection(manager.startInstances());
      assert.equal(error.kind, "usage");
      assert.match(error.message, /instance-0 could not start: --max-num-batched-tokens/);
      assert.equal((await exits[0]).code, 2);
      assert.deepEqual(logged, [], "the manager tells the user");
    },
    { options: { maxNumBatchedTokens: 16 } },
  );
  assert.equal(closed, 1);
});

Deno.test("instance: a device that is not there is refused", () =>
  withInstances(loadNullExecutor, async ({ manager, exits }) => {
    const error = await rejection(manager.startInstances());
    assert.match(error.message, /--device neuron: this program has no such device/);
    assert.equal((await exits[0]).code, 2);
  }, { options: { device: "neuron" as EngineOptions["device"] } }));

Deno.test("instance: asked to stop while it loads, it does not wait for the load", async () => {
  const loading = Promise.withResolvers<void>(), mayLoad = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  await withInstances(async (spec) => {
    loading.resolve();
    await mayLoad.promise;
    return await loadAndWatch(spec, () => closed.resolve());
  }, async ({ manager, exits }) => {
    const start = rejection(manager.startInstances());
    await loading.promise;
    await manager.stop();
    assert.equal((await exits[0]).code, 0);
    assert.match((await start).message, /before it was ready/);
  });
  mayLoad.resolve();
  await closed.promise;
});

Deno.test("instance: what was started by hand says itself why it does not start", () =>
  withInstances(loadNullExecutor, async ({ bus, events }) => {
    const logged: string[] = [];
    const append = (message: string) => void logged.push(message);
    const code = await serveInstance({
      options: engineOptions({ maxNumBatchedTokens: 16 }),
      instanceId: "odd",
      managerAddress: "inproc:manager",
      hostShare: 1,
      log: { debug: () => {}, info: append, warn: append, error: append },
      bus,
      loadExecutor: loadNullExecutor,
      startedBy: "hand",
    });
    assert.equal(code, 2);
    assert.equal(logged.length, 2);
    assert.equal(logged[0], "joined the manager at inproc:manager");
    assert.match(logged[1], /^stopping: --max-num-batched-tokens/);
    await until(() => events.some(({ type }) => type === "start_failed"));
    const event = events.find((event) => event.type === "start_failed")!;
    assert.match(event.reason, /^odd could not start: --max-num-batched-tokens/);
  }));

Deno.test("instance: where something else listens than a manager, it says so", async () => {
  const bus = new InProcessBus();
  const foreign = await bus.listen("inproc:foreign", {
    calls: {
      join: (_, peer) => {
        peer.close();
        return Promise.withResolvers<never>().promise;
      },
    },
  });
  const logged: string[] = [];
  const append = (message: string) => void logged.push(message);
  const code = await serveInstance({
    options: engineOptions(),
    instanceId: "odd",
    managerAddress: "inproc:foreign",
    hostShare: 1,
    log: { debug: append, info: append, warn: append, error: append },
    bus,
    loadExecutor: loadNullExecutor,
    startedBy: "hand",
  });
  await foreign.close();
  assert.equal(code, 1);
  assert.equal(logged.length, 1);
  assert.match(logged[0], /^stopping: no manager answers at inproc:foreign \(join .*closed/);
});

Deno.test("instance: without a manager it ends", async () => {
  const code = await serveInstance({
    options: engineOptions(),
    instanceId: "instance-0",
    managerAddress: "inproc:nobody",
    hostShare: 1,
    log: logger("instance"),
    bus: new InProcessBus(),
    loadExecutor: loadNullExecutor,
  });
  assert.equal(code, 1);
});
