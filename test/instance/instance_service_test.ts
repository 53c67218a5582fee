import { calls } from "../../src/core/protocol/calls.ts";
import assert from "node:assert/strict";
import type { BusLimits, Peer } from "../../src/bus/bus.ts";
import { defaultBusLimits } from "../../src/bus/bus.ts";
import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { RequestError } from "../../src/core/errors.ts";
import type {
  GenerateRequest,
  OutputBatch,
  RequestId,
  RequestOutput,
} from "../../src/core/protocol/generate.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import { InstanceService, type ServedEngine } from "../../src/instance/instance_service.ts";
import { rejection, until } from "../conformance/bus.ts";
import { generateRequest } from "./support.ts";

class RecordingEngine implements ServedEngine {
  readonly added: RequestId[] = [];
  readonly aborted: RequestId[] = [];

  add({ requestId, promptTokenIds }: GenerateRequest): void {
    if (promptTokenIds.length > 100) throw new RequestError("the prompt is too long", "prompt");
    this.added.push(requestId);
  }

  abort(requestId: RequestId): void {
    this.aborted.push(requestId);
  }

  has(requestId: RequestId): boolean {
    return this.added.includes(requestId) && !this.aborted.includes(requestId);
  }

  epochOf(requestId: RequestId): number | null {
    return this.has(requestId) ? 3 : null;
  }

  info(): InstanceInfo {
    return { instanceId: "i0", stepId: 7 } as InstanceInfo;
  }
}

/** An API server's end of a connection. */
interface Frontend {
  readonly peer: Peer;
  readonly batches: OutputBatch[];
  generate(requestId: RequestId, promptTokens?: number): Promise<unknown>;
}

interface World {
  readonly engine: RecordingEngine;
  readonly service: InstanceService;
  connect(frontendId: string): Promise<Frontend>;
}

async function withService(
  body: (world: World) => Promise<void>,
  limits: Partial<BusLimits> = {},
): Promise<void> {
  const bus = new InProcessBus({ ...defaultBusLimits, ...limits });
  const engine = new RecordingEngine();
  const service = new InstanceService();
  service.attach(engine);
  const listener = await bus.listen("inproc:i0", service.service);
  const connect = async (frontendId: string): Promise<Frontend> => {
    const batches: OutputBatch[] = [];
    const peer = await bus.connect("inproc:i0", {
      notifications: { outputs: ({ data }) => void batches.push(data) },
    });
    await peer.call("hello", { data: { frontendId } });
    const generate = (requestId: RequestId, promptTokens = 3) => {
      const request = generateRequest(requestId, promptTokens, {}, { frontendId });
      return peer.call("generate", { data: request });
    };
    return { peer, batches, generate };
  };
  try {
    await body({ engine, service, connect });
  } finally {
    await listener.close();
  }
}

const token = (requestId: RequestId): RequestOutput => ({ requestId, index: 0, tokenIds: [1] });
const last = (requestId: RequestId): RequestOutput => {
  return { requestId, index: 1, tokenIds: [2], finish: { reason: "stop" } };
};

Deno.test("instance service: queues requests of API servers that introduced themselves", () =>
  withService(async ({ engine, connect }) => {
    const f = await connect("f");
    await f.generate("a");
    const foreign = generateRequest("b", 3, {}, { frontendId: "g" });
    const error = await rejection(f.peer.call("generate", { data: foreign }));
    assert.match(error.message, /has not introduced itself as g/);
    const refused = await rejection(f.generate("c", 101));
    assert.ok(refused instanceof RequestError);
    assert.equal(refused.param, "prompt");
    assert.deepEqual(engine.added, ["a"]);
    assert.deepEqual((await f.peer.call("status", { data: null })).data, engine.info());
  }));

Deno.test("instance service: takes a long prompt as the payload", () =>
  withService(async ({ engine, connect }) => {
    const f = await connect("f");
    const request = { ...generateRequest("a", 1, {}, { frontendId: "f" }), promptTokenIds: [] };
    await f.peer.call("generate", { data: request, payload: new Uint8Array(4 * 100) });
    assert.deepEqual(engine.added, ["a"]);
    const longer = { data: { ...request, requestId: "b" }, payload: new Uint8Array(4 * 101) };
    assert.ok(await rejection(f.peer.call("generate", longer)) instanceof RequestError);
  }));

Deno.test("instance service: what an API server says twice changes nothing", () =>
  withService(async ({ engine, service, connect }) => {
    const f = await connect("f");
    await f.peer.call("hello", { data: { frontendId: "f" } });
    const request = generateRequest("a", 3, {}, { frontendId: "f", epoch: 3 });
    for (let i = 0; i < 2; i++) await f.peer.call("generate", { data: request });
    assert.deepEqual([engine.added, engine.aborted], [["a"], []]);
    service.sendOutputs([{ frontendId: "f", outputs: [token("a")] }]);
    await until(() => f.batches.length === 1);
  }));

Deno.test("instance service: a request that is resumed here takes the place of what is here of it", () =>
  withService(async ({ engine, connect }) => {
    const f = await connect("f");
    await f.generate("a"); // the engine says: epoch 3
    const again = generateRequest("a", 3, {}, { frontendId: "f", epoch: 65536 });
    await f.peer.call("generate", { data: again });
    assert.deepEqual([engine.added, engine.aborted], [["a", "a"], ["a"]]);
    engine.aborted.length = 0;
    const stale = generateRequest("a", 3, {}, { frontendId: "f", epoch: 3 });
    await f.peer.call("generate", { data: stale });
    assert.deepEqual(engine.aborted, [], "the engine is to refuse it");
  }));

Deno.test("instance service: the end of what came before does not make it forget what came back", () =>
  withService(async ({ engine, service, connect }) => {
    const first = await connect("f");
    await first.generate("a");
    await first.peer.close();
    await until(() => engine.aborted.length === 1);
    const second = await connect("f");
    const again = generateRequest("a", 3, {}, { frontendId: "f", epoch: 65536 });
    await second.peer.call("generate", { data: again });
    service.sendOutputs([{
      frontendId: "f",
      outputs: [{ requestId: "a", index: 0, tokenIds: [], finish: { reason: "abort" } }],
    }]);
    await second.peer.close();
    await until(() => engine.aborted.length === 2);
    const third = await connect("f");
    await third.peer.call("generate", { data: again });
    service.sendOutputs([{ frontendId: "f", outputs: [{ ...last("a"), epoch: 65537 }] }]);
    await third.peer.close();
    const fourth = await connect("f");
    await fourth.peer.call("status", { data: null });
    assert.deepEqual(engine.aborted, ["a", "a"]);
  }));

Deno.test("instance service: a step's outputs are one message for each API server", () =>
  withService(async ({ service, connect }) => {
    const f = await connect("f"), g = await connect("g");
    service.sendOutputs([
      { frontendId: "f", outputs: [token("a"), token("b")] },
      { frontendId: "g", outputs: [token("x")] },
      { frontendId: "gone", outputs: [token("y")] },
    ]);
    service.sendOutputs([{ frontendId: "f", outputs: [last("a")] }]);
    await until(() => f.batches.length === 2 && g.batches.length === 1);
    assert.deepEqual(f.batches, [{ outputs: [token("a"), token("b")] }, { outputs: [last("a")] }]);
    assert.deepEqual(g.batches, [{ outputs: [token("x")] }]);
  }));

Deno.test("instance service: what an API server has running ends with its connection", () =>
  withService(async ({ engine, service, connect }) => {
    const f = await connect("f"), g = await connect("g");
    for (const id of ["a", "b", "c"]) await f.generate(id);
    await g.generate("x");
    f.peer.notify("abort", { data: { requestIds: ["b"] } });
    await until(() => engine.aborted.length === 1);
    service.sendOutputs([{ frontendId: "f", outputs: [last("a"), last("b")] }]);
    await f.peer.close();
    await until(() => engine.aborted.length === 2);
    assert.deepEqual(engine.aborted, ["b", "c"]);
  }));

Deno.test("instance service: an API server that comes back takes the place of its former self", () =>
  withService(async ({ engine, service, connect }) => {
    const before = await connect("f");
    await before.generate("a");
    const after = await connect("f");
    assert.deepEqual(engine.aborted, ["a"]);
    await until(() => !before.peer.isOpen);
    await after.generate("b");
    service.sendOutputs([{ frontendId: "f", outputs: [token("b")] }]);
    await until(() => after.batches.length === 1);
    assert.deepEqual(before.batches, []);
    assert.deepEqual(engine.aborted, ["a"]);
  }));

Deno.test("instance service: outputs too large for one message go one by one, or end", () =>
  withService(async ({ engine, service, connect }) => {
    const f = await connect("f");
    const long = (requestId: string, tokens: number) => ({
      requestId,
      index: 0,
      tokenIds: Array<number>(tokens).fill(12345),
    });
    const a = long("a", 100), b = long("b", 100), c = long("c", 1000);
    service.sendOutputs([{ frontendId: "f", outputs: [a, b, c] }]);
    await until(() => f.batches.length === 3);
    assert.deepEqual(f.batches.slice(0, 2), [{ outputs: [a] }, { outputs: [b] }]);
    const [{ requestId, finish }] = f.batches[2].outputs;
    assert.equal(requestId, "c");
    assert.match(finish!.error!.message, /too large to be sent.*over the limit of 1500 bytes/);
    assert.deepEqual(engine.aborted, ["c"]);
  }, { maxFrameBytes: 1500 }));

Deno.test("service: every migration call of the protocol has a handler", () => {
  const { service } = new InstanceService();
  const wanted = Object.keys(calls).filter((method) => method.startsWith("migrate_"));
  const handled = Object.keys(service.calls ?? {}).filter((method) =>
    method.startsWith("migrate_")
  );
  assert.deepEqual(handled.sort(), wanted.sort());
});

/** Queues a request that asks to be held. */
async function generateHeld(frontend: Frontend, frontendId: string, requestId: RequestId) {
  const request = { ...generateRequest(requestId, 3, {}, { frontendId }), holdMs: 60_000 };
  await frontend.peer.call("generate", { data: request });
}

const take = async ({ peer }: Frontend, requestId: RequestId) =>
  (await peer.call("take", { data: { requestId } })).data.held;

Deno.test("instance service: another API server takes a request of one that has gone", () =>
  withService(async ({ engine, service, connect }) => {
    const f = await connect("f"), g = await connect("g");
    await generateHeld(f, "f", "a");
    await f.generate("plain");
    service.sendOutputs([{ frontendId: "f", outputs: [token("a"), token("plain")] }]);
    await f.peer.close();
    await until(() => engine.aborted.length === 2);
    const end = { requestId: "a", index: 1, tokenIds: [], finish: { reason: "abort" } } as const;
    service.sendOutputs([{ frontendId: "f", outputs: [end] }]);
    assert.deepEqual((await take(g, "a"))?.tokenIds, [1]);
    assert.equal(await take(g, "plain"), null);
    assert.equal(await take(g, "unknown"), null);
    service.close();
  }));

Deno.test("instance service: a request that still runs is taken from its API server, which hears of it", () =>
  withService(async ({ engine, service, connect }) => {
    const f = await connect("f"), g = await connect("g");
    await generateHeld(f, "f", "a");
    service.sendOutputs([{ frontendId: "f", outputs: [token("a")] }]);
    assert.deepEqual((await take(g, "a"))?.tokenIds, [1]);
    assert.deepEqual(engine.aborted, ["a"]);
    await until(() => f.batches.length === 2);
    const [{ index, finish }] = f.batches[1].outputs;
    // No kind that an API server would resume the request for.
    assert.deepEqual([index, finish?.reason, finish?.error?.kind], [1, "error", "conflict"]);
    service.close();
  }));

Deno.test("instance service: a request that moves is held where it moved to", () =>
  withService(async ({ engine, service, connect }) => {
    const f = await connect("f"), g = await connect("g");
    await generateHeld(f, "f", "left");
    engine.abort("left");
    service.forget("left");
    assert.equal(await take(g, "left"), null);
    const moved = generateRequest("came", 3, {}, { frontendId: "dead", epoch: 1, holdMs: 60_000 });
    service.expect({ ...moved, outputTokenIds: [1, 2] });
    const output = { requestId: "came", index: 2, tokenIds: [3], epoch: 1 };
    service.sendOutputs([{ frontendId: "dead", outputs: [output] }]);
    assert.deepEqual((await take(g, "came"))?.tokenIds, [1, 2, 3]);
    service.close();
  }));

Deno.test("instance service: who did not introduce itself takes nothing", async () => {
  const bus = new InProcessBus();
  const service = new InstanceService();
  service.attach(new RecordingEngine());
  await using _ = await listening(bus, service);
  const stranger = await bus.connect("inproc:i0", {});
  const error = await rejection(stranger.call("take", { data: { requestId: "a" } }));
  assert.match(error.message, /has not introduced itself/);
});

async function listening(bus: InProcessBus, service: InstanceService): Promise<AsyncDisposable> {
  const listener = await bus.listen("inproc:i0", service.service);
  return { [Symbol.asyncDispose]: () => listener.close() };
}
