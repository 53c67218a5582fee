import assert from "node:assert/strict";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import type { RequestOutput } from "../../src/core/protocol/generate.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import { ClusterClient } from "../../src/client/cluster_client.ts";
import { Manager } from "../../src/manager/manager.ts";
import { ProcessLauncher, refusalOn } from "../../src/roles/process_launcher.ts";
import { InProcessLauncher } from "../../src/roles/in_process_launcher.ts";
import { engineOptions, samplingParams } from "../instance/support.ts";
import { generateRequest, managerOptions } from "../manager/support.ts";

async function withManager(
  options: Partial<EngineOptions>,
  body: (manager: Manager, bus: InProcessBus, launcher: InProcessLauncher) => Promise<void>,
): Promise<void> {
  const bus = new InProcessBus();
  const all = engineOptions({ device: "sim", model: "llama-7b", speedup: 1000, ...options });
  const launcher = new InProcessLauncher({ options: all, bus, clock: realClock });
  const manager = await Manager.listen({
    bus,
    addresses: ["inproc:manager"],
    options: { ...managerOptions, initialInstances: 4 },
    launcher,
    clock: realClock,
  });
  try {
    await body(manager, bus, launcher);
  } finally {
    await manager.stop();
  }
}

async function generate(client: ClusterClient, requestId: string): Promise<RequestOutput[]> {
  const outputs: RequestOutput[] = [];
  const done = Promise.withResolvers<void>();
  const params = samplingParams({ maxTokens: 20, seed: 3 });
  await client.submit(generateRequest(requestId, { frontendId: "f", params }), (output) => {
    outputs.push(output);
    if (output.finish) done.resolve();
  });
  await done.promise;
  return outputs;
}

Deno.test("a simulated cluster within one process answers", () =>
  withManager({}, async (manager, bus) => {
    await manager.startInstances();
    assert.deepEqual(manager.instances().map(({ totalBlocks }) => totalBlocks), [
      851,
      851,
      851,
      851,
    ]);
    const client = await ClusterClient.connect({
      bus,
      managerAddress: "inproc:manager",
      frontendId: "f",
      clock: realClock,
    });
    try {
      const answers = await Promise.all(
        Array.from({ length: 12 }, (_, i) => generate(client, `r${i}`)),
      );
      const tokens = answers.map((outputs) => outputs.flatMap(({ tokenIds }) => [...tokenIds]));
      assert.equal(tokens[0].length, 20);
      for (const other of tokens) assert.deepEqual(other, tokens[0], "same seed, same tokens");
    } finally {
      await client.close();
    }
  }));

Deno.test("an instance that cannot start gives its reason", () =>
  withManager({ model: "gpt" }, async (manager) => {
    await assert.rejects(manager.startInstances(), {
      name: "UsageError",
      message: /There is no built-in profile of gpt/,
    });
  }));

Deno.test("an instance that is killed has exited, one that is stopped exits", () =>
  withManager({}, async (manager, _bus, launcher) => {
    await manager.startInstances();
    const stray = {
      instanceId: "stray",
      managerAddress: "inproc:manager",
      numBlocks: null,
      startedBy: "manager" as const,
    };
    const killed = await launcher.launch(stray);
    killed.stop("SIGKILL");
    assert.deepEqual(await killed.exited, { code: null, signal: "SIGKILL" });
    const stopped = await launcher.launch(stray);
    stopped.stop("SIGTERM");
    assert.deepEqual(await stopped.exited, { code: 0, signal: null });
  }));

Deno.test("launchers refuse to start instances on this host while it is drained", () => {
  const host = Deno.hostname();
  assert.equal(refusalOn(host, new Set(["another"])), null);
  assert.match(refusalOn(host, new Set([host]))!, /is drained.*keep the host first/);
  const launcher = new ProcessLauncher({ hostShare: 1, engineArgv: [] });
  assert.notEqual(launcher.refusal("unix:/run/m.sock", new Set([host])), null);
  assert.equal(launcher.refusal("tcp:10.0.0.1:7000", new Set([host])), null);
  assert.notEqual(launcher.refusal("tcp:10.0.0.1:7000", new Set(["10.0.0.1"])), null);
});
