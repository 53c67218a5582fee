/** The real UCX between processes of one host, over shared memory and over TCP. */
import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { libraries } from "../../../ffi/library_search.ts";
import { UcxError, type UcxRequest } from "../../../ffi/ucx/calls.ts";
import { Ucx } from "../../../ffi/ucx/ucx.ts";
import type { UcxWorker } from "../../../ffi/ucx/worker.ts";
import { realTest } from "../real_libraries.ts";
import type { UcxAnswer, UcxOrder } from "./ucx_peer.ts";
import { PATIENCE_MS } from "../../patience.ts";

const byteLength = 4 << 20;

async function finish(worker: UcxWorker, request: UcxRequest): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!worker.isDone(request)) {
    assert.ok(performance.now() < deadline, `not done after ${PATIENCE_MS} ms`);
    if (!worker.progress()) await setImmediate();
  }
}

function peer(order: UcxOrder): Deno.ChildProcess {
  const script = decodeURIComponent(new URL("./ucx_peer.ts", import.meta.url).pathname);
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, JSON.stringify(order)],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

for (const settings of [{ TLS: "tcp" }, { TLS: "shm,self" }]) {
  realTest(libraries.ucp, `two processes put and get over ${settings.TLS}`, async (file) => {
    const context = Ucx.open({ from: file }).createContext({ settings });
    const pool = context.allocate(byteLength), worker = context.createWorker();
    assert.ok(pool.byteLength >= byteLength);
    pool.bytes().fill(0x55, 0, byteLength / 2);
    pool.bytes().fill(0, byteLength / 2, byteLength);
    const child = peer({
      ...{ file, settings, byteLength, address: String(pool.address) },
      workerAddress: worker.address().toHex(),
      key: pool.packKey().toHex(),
    });
    let ended = false;
    const output = child.output().finally(() => ended = true);
    while (!ended) {
      if (!worker.progress()) await setImmediate();
    }
    const { success, stdout, stderr } = await output;
    assert.ok(success, new TextDecoder().decode(stderr));
    const answer: UcxAnswer = JSON.parse(new TextDecoder().decode(stdout));
    assert.deepEqual(answer.seen, [0x55]);
    const shared = settings.TLS !== "tcp";
    assert.ok(answer.transports.length > 0);
    assert.equal(answer.transports.includes("tcp"), !shared, answer.transports.join());
    assert.ok(pool.bytes().subarray(byteLength / 2, byteLength).every((byte) => byte === 0x66));
    worker.close();
    pool.unmap();
    context.close();
  });
}

realTest(libraries.ucp, "settings hold, and unknown ones are refused", (file) => {
  const ucx = Ucx.open({ from: file });
  assert.match(ucx.version, /^1\.\d+\.\d+$/);
  const all = ucx.createContext();
  assert.ok(all.memoryTypes().includes("host"));
  assert.ok(all.devices().some(({ transport }) => transport === "tcp"));
  all.close();
  const tcp = ucx.createContext({ settings: { TLS: "tcp" } });
  assert.deepEqual([...new Set(tcp.devices().map(({ transport }) => transport))], ["tcp"]);
  tcp.close();
  // UCX 1.13 keeps a setting that it does not know for a transport that might.
  if (ucx.version.startsWith("1.13.")) return;
  assert.throws(() => ucx.createContext({ settings: { NONSENSE: "1" } }), (error) => {
    assert.ok(error instanceof UcxError);
    assert.match(error.message, /^ucp_config_modify\(NONSENSE=1\): .+ \(-\d+\)$/);
    return true;
  });
});

realTest(libraries.ucp, "an idle worker says so, and an event wakes it", async (file) => {
  const context = Ucx.open({ from: file }).createContext({ settings: { TLS: "tcp,self" } });
  const worker = context.createWorker(), other = context.createWorker();
  assert.ok(worker.eventDescriptor() > 2);
  while (!worker.arm()) worker.progress();
  const pool = context.allocate(4096), source = context.allocate(4096);
  const endpoint = other.createEndpoint(worker.address());
  const key = endpoint.unpackKey(pool.packKey());
  source.bytes()[0] = 9;
  const request = endpoint.put(source, source.address, 4096, pool.address, key);
  const flush = endpoint.flush();
  const both = [request, flush].map((one) => ({ one, done: false }));
  while (both.some(({ done }) => !done)) {
    worker.progress();
    other.progress();
    for (const state of both) state.done ||= other.isDone(state.one);
    await setImmediate();
  }
  assert.equal(pool.bytes()[0], 9);
  endpoint.destroyKey(key);
  const closing = endpoint.close();
  while (!other.isDone(closing)) {
    worker.progress();
    other.progress();
  }
  for (const one of [other, worker]) one.close();
  for (const memory of [pool, source]) memory.unmap();
  context.close();
});

realTest(
  libraries.ucp,
  "with errors of the peer, a killed one ends the operation",
  async (file) => {
    const settings = { TLS: "tcp" };
    const context = Ucx.open({ from: file }).createContext({ settings });
    const worker = context.createWorker();
    const script = decodeURIComponent(new URL("./ucx_victim.ts", import.meta.url).pathname);
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", script, file],
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    const line = new TextDecoder().decode((await reader.read()).value);
    const { address, key: packed, pool } = JSON.parse(line);
    const endpoint = worker.createEndpoint(Uint8Array.fromHex(address), { errors: "peer" });
    const key = endpoint.unpackKey(Uint8Array.fromHex(packed));
    const memory = context.allocate(byteLength);
    const put = () => endpoint.put(memory, memory.address, byteLength, BigInt(pool), key);
    await finish(worker, put());
    await finish(worker, endpoint.flush());
    child.kill("SIGKILL");
    await child.status;
    await assert.rejects(async () => {
      await finish(worker, put());
      await finish(worker, endpoint.flush());
    }, (error) => {
      assert.ok(error instanceof UcxError);
      assert.ok([-25, -80, -3].includes(error.status), error.message);
      return true;
    });
    endpoint.destroyKey(key);
    await finish(worker, endpoint.close(true));
    worker.close();
    memory.unmap();
    context.close();
    await reader.cancel();
  },
);
