import assert from "node:assert/strict";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import { OverloadedError, RequestError } from "../../src/core/errors.ts";
import { type RequestOutput, RESUME_EPOCH } from "../../src/core/protocol/generate.ts";
import { ClusterClient, type ClusterClientConfig } from "../../src/client/cluster_client.ts";
import { Manager } from "../../src/manager/manager.ts";
import { rejection, until } from "../conformance/bus.ts";
import {
  generateRequest,
  managerOptions,
  type ScriptedInstance,
  ScriptedLauncher,
} from "../manager/support.ts";

interface World {
  readonly manager: Manager;
  readonly client: ClusterClient;
  readonly instances: ScriptedInstance[];
  /** Why the connection to the manager ended. */
  readonly managerLost: string[];
}

async function withCluster(
  body: (world: World) => Promise<void>,
  { isStarted = true, ...overrides }: Partial<ClusterClientConfig> & { isStarted?: boolean } = {},
): Promise<void> {
  const bus = new InProcessBus();
  const launcher = new ScriptedLauncher(bus);
  const managerLost: string[] = [];
  const manager = await Manager.listen({
    bus,
    addresses: ["inproc:manager"],
    options: managerOptions,
    launcher,
    clock: realClock,
  });
  if (isStarted) await manager.startInstances();
  const client = await ClusterClient.connect({
    bus,
    managerAddress: "inproc:manager",
    frontendId: "frontend",
    clock: realClock,
    onManagerLost: (reason) => managerLost.push(reason),
    ...overrides,
  });
  try {
    await body({ manager, client, instances: launcher.instances, managerLost });
  } finally {
    await client.close();
    await manager.stop();
  }
}

/** Submits and collects; `outputs` goes on growing. */
async function submit(client: ClusterClient, requestId: string): Promise<RequestOutput[]> {
  const outputs: RequestOutput[] = [];
  await client.submit(generateRequest(requestId), (output) => outputs.push(output));
  return outputs;
}

const token = (requestId: string, index: number): RequestOutput => {
  return { requestId, index, tokenIds: [100 + index] };
};
const last = (requestId: string, index: number): RequestOutput => {
  return { ...token(requestId, index), finish: { reason: "length" } };
};

Deno.test("cluster client: knows the instances, and whether all of them serve", () =>
  withCluster(async ({ client, manager }) => {
    assert.equal(client.isReady(), false);
    assert.deepEqual(client.instances(), []);
    await manager.startInstances();
    await until(() => client.isReady());
    assert.equal(client.instances().length, 2);
  }, { isStarted: false }));

Deno.test("cluster client: tells when an instance serves, also one that is lost at once", () =>
  withCluster(async ({ client, manager }) => {
    let hasServed = false;
    const served = client.untilServing("instance-1").then(() => hasServed = true);
    await until(() => client.instances().length === 0);
    assert.equal(hasServed, false);
    await manager.startInstances();
    await served;
    await client.untilServing("instance-0");
    const next = client.untilServing("instance-2");
    const removed = manager.addInstance().then((instanceId) => manager.removeInstance(instanceId));
    await next;
    await removed;
  }, { isStarted: false }));

Deno.test("cluster client: requests alternate, tokens come straight from their instance", () =>
  withCluster(async ({ client, instances }) => {
    const a = await submit(client, "a"), b = await submit(client, "b");
    assert.deepEqual(instances.map(({ requests }) => [...requests.keys()]), [["a"], ["b"]]);
    assert.deepEqual(instances[0].requests.get("a"), generateRequest("a"));
    instances[0].send(token("a", 0));
    instances[1].send(token("b", 0));
    instances[0].send(last("a", 1));
    await until(() => a.length === 2 && b.length === 1);
    assert.deepEqual(a, [token("a", 0), last("a", 1)]);
    instances[1].send(token("b", 0), token("b", 2), token("b", 1), last("b", 3), last("b", 3));
    await until(() => b.length === 4);
    assert.deepEqual(b.map(({ index }) => index), [0, 1, 2, 3]);
  }));

Deno.test("cluster client: output that overtakes the acceptance waits for it", () =>
  withCluster(async ({ client, instances }) => {
    for (const instance of instances) {
      instance.onGenerate = () => instance.send(token("a", 0), last("a", 1));
    }
    let isAccepted = false;
    const indices: number[] = [];
    await client.submit(generateRequest("a"), ({ index }) => {
      assert.ok(isAccepted);
      indices.push(index);
    });
    isAccepted = true;
    await until(() => indices.length === 2);
  }));

Deno.test("cluster client: an id can be used again once its request has ended, not before", () =>
  withCluster(async ({ client, instances }) => {
    const first = await submit(client, "a");
    assert.ok(await rejection(submit(client, "a")) instanceof RequestError);
    instances[0].send(last("a", 0));
    await until(() => first.length === 1);
    await submit(client, "a");
  }));

Deno.test("cluster client: refusals keep their kind and leave nothing behind", () =>
  withCluster(async ({ client, instances }) => {
    for (const instance of instances) {
      instance.onGenerate = () => {
        throw new OverloadedError("the queue is full");
      };
    }
    assert.ok(await rejection(submit(client, "a")) instanceof OverloadedError);
    for (const instance of instances) instance.onGenerate = () => {};
    await submit(client, "a");
  }));

Deno.test("cluster client: abort reaches the instance, and the sink is silent after it", () =>
  withCluster(async ({ client, instances }) => {
    const outputs = await submit(client, "a");
    client.abort("a");
    client.abort("unknown");
    instances[0].send(token("a", 0), last("a", 1));
    await until(() => instances[0].aborted.length === 1);
    await submit(client, "b");
    await submit(client, "c"); // goes to the instance of "a": its outputs have arrived by now
    assert.deepEqual(outputs, []);
    assert.deepEqual(instances[0].aborted, ["a"]);
  }));

Deno.test("cluster client: after an abort the sink is silent, also if the end came before the acceptance", () =>
  withCluster(async ({ client, instances }) => {
    const ended = Promise.withResolvers<void>(), mayAnswer = Promise.withResolvers<void>();
    instances[0].onGenerate = () => {
      instances[0].send(last("a", 0));
      ended.resolve();
      return mayAnswer.promise;
    };
    const submitted = submit(client, "a");
    await ended.promise;
    await until(() => client.numRequests === 0);
    client.abort("a");
    mayAnswer.resolve();
    const outputs = await submitted;
    await submit(client, "b");
    assert.deepEqual(outputs, []);
  }));

Deno.test("cluster client: abort during submit reaches the instance behind the request", () =>
  withCluster(async ({ client, instances }) => {
    const asked = Promise.withResolvers<void>(), mayAnswer = Promise.withResolvers<void>();
    instances[0].onGenerate = () => {
      asked.resolve();
      return mayAnswer.promise;
    };
    const submitted = submit(client, "a");
    await asked.promise;
    client.abort("a");
    mayAnswer.resolve();
    assert.deepEqual(await submitted, []);
    await until(() => instances[0].aborted.length === 1);
  }));

Deno.test("cluster client: the requests of a lost instance go on elsewhere", () =>
  withCluster(async ({ client, instances }) => {
    const a = await submit(client, "a"), b = await submit(client, "b");
    instances[0].send(token("a", 0), token("a", 1));
    await until(() => a.length === 2);
    await instances[0].exit({ code: null, signal: "SIGKILL" });
    await until(() => instances[1].requests.has("a"));
    const { outputTokenIds, epoch } = instances[1].requests.get("a")!;
    assert.deepEqual(outputTokenIds, [100, 101]);
    assert.equal(epoch, RESUME_EPOCH);
    instances[1].send({ ...token("a", 2), epoch }, { ...last("a", 3), epoch });
    await until(() => a.length === 4);
    assert.deepEqual(a.map(({ tokenIds }) => tokenIds), [[100], [101], [102], [103]]);
    assert.equal(b.length, 0);
  }));

Deno.test("cluster client: an instance lost before it accepts is replaced by another", () =>
  withCluster(async ({ client, instances }) => {
    instances[0].onGenerate = () => {
      instances[0].exit({ code: 1, signal: null });
      return new Promise(() => {});
    };
    const outputs = await submit(client, "a");
    assert.ok(instances[1].requests.has("a"));
    instances[1].send(last("a", 0));
    await until(() => outputs.length === 1);
    assert.deepEqual(outputs, [last("a", 0)]);
  }));

Deno.test("cluster client: a request waits for the first instance", () =>
  withCluster(async ({ client, manager, instances }) => {
    const submitted = submit(client, "a");
    await manager.startInstances();
    await submitted;
    assert.ok(instances.some(({ requests }) => requests.has("a")));
  }, { isStarted: false }));

Deno.test("cluster client: who waits for an instance may leave, and is told when nothing will come", () =>
  withCluster(async ({ client }) => {
    const left = submit(client, "left"), told = submit(client, "told");
    await until(() => client.numRequests === 2);
    client.abort("left");
    assert.equal(client.numRequests, 1);
    await client.close();
    assert.deepEqual(await left, []);
    const outputs = await told;
    await until(() => outputs.length > 0);
    assert.equal(outputs[0].finish!.error!.message, "the API server is closing");
  }, { isStarted: false }));

Deno.test("cluster client: close ends what runs", () =>
  withCluster(async ({ client, managerLost }) => {
    const outputs = await submit(client, "a");
    await client.close();
    assert.deepEqual(outputs.map(({ finish }) => finish?.reason), ["error"]);
    assert.deepEqual(managerLost, []);
  }));

Deno.test("cluster client: what an instance takes over in the words in which it dies goes on elsewhere", () =>
  withCluster(async ({ client, instances }) => {
    const a = await submit(client, "a"), b = await submit(client, "b");
    const error = { kind: "internal", message: "the step failed" } as const;
    instances[0].send(
      { requestId: "a", index: 0, tokenIds: [], finish: { reason: "error", error } },
      { requestId: "b", index: 0, tokenIds: [], epoch: 1 }, // has moved there just now
    );
    await until(() => instances[1].requests.get("b")?.epoch === RESUME_EPOCH);
    instances[1].send({ ...last("b", 0), epoch: RESUME_EPOCH });
    await until(() => b.length > 0 && b.at(-1)!.finish !== undefined);
    assert.ok(a.every(({ finish }) => finish === undefined)); // so does the other
  }));

Deno.test("cluster client: a manager that serves something else gets no requests, and they do not wait", async () => {
  const bus = new InProcessBus();
  const settings = { model: "test", dtype: "float32", maxModelLen: 1000 };
  const start = (model: string, launcher: ScriptedLauncher) =>
    Manager.listen({
      bus,
      addresses: ["inproc:manager"],
      options: managerOptions,
      settings: { ...settings, model },
      launcher,
      clock: realClock,
    });
  let launcher = new ScriptedLauncher(bus);
  let manager = await start("test", launcher);
  await manager.startInstances();
  const mismatches: string[] = [];
  const client = await ClusterClient.connect({
    bus,
    managerAddress: "inproc:manager",
    frontendId: "frontend",
    clock: realClock,
    settings,
    onSettingsMismatch: (reason) => mismatches.push(reason),
  });
  await manager.stop(); // with its instances
  await until(() => !client.isReady());
  const waiting = rejection(submit(client, "waiting"));

  launcher = new ScriptedLauncher(bus, async (instance) => {
    instance.settings = { model: "other" };
    await instance.join();
    await instance.register();
  });
  manager = await start("other", launcher);
  await manager.startInstances();
  for (const refused of [waiting, rejection(submit(client, "new"))]) {
    const { kind, message } = await refused;
    assert.equal(kind, "unavailable");
    assert.match(message, /this API server has --model test, and its manager other: give both/);
  }
  assert.equal(client.isReady(), false);
  assert.equal(mismatches.length, 1);
  for (const { requests } of launcher.instances) assert.equal(requests.size, 0);
  await manager.stop();

  launcher = new ScriptedLauncher(bus);
  manager = await start("test", launcher);
  await manager.startInstances();
  await until(() => client.isReady());
  await submit(client, "last");
  await client.close();
  await manager.stop();
});
