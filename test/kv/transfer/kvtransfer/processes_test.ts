/** Two processes of which one is killed or hangs. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../../../src/core/errors.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { thisProcess } from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { NamingDirectory } from "../../../../src/kv/transfer/kvtransfer/naming.ts";
import { networkLayout } from "../../../conformance/network_backend.ts";
import { libraries } from "../../../../ffi/library_search.ts";
import { realTest } from "../../../ffi/real_libraries.ts";
import type { PeerOrder } from "./_peer.ts";
import { farHost, openEnd, type PullEnd, transferTo } from "./support.ts";

/** Of 256 KiB each. */
const NUM_BLOCKS = 40;
const blocks = Array.from({ length: NUM_BLOCKS }, (_, block) => block);

interface Peer {
  readonly process: Deno.ChildProcess;
  readonly address: string;
  /** Of its entry in the naming directory. */
  readonly generation: string;
  readonly isFar: boolean;
}

interface Ends {
  /** In this process, with blocks that hold 1. */
  readonly here: PullEnd & { readonly pool: ArrayKvPool };
  readonly peer: Peer;
  readonly naming: string;
}

function test(name: string, body: (ends: Ends) => Promise<void>): void {
  Deno.test(`kvtransfer between processes: ${name}`, () => withEnds(body));
}

/** By UCX: the other process passes for one of another host. */
function ucxTest(name: string, body: (ends: Ends) => Promise<void>): void {
  const title = `kvtransfer between processes, by UCX: ${name}`;
  realTest(libraries.ucp, title, (file) => withEnds(body, file));
}

async function withEnds(body: (ends: Ends) => Promise<void>, ucx?: string): Promise<void> {
  const naming = Deno.makeTempDirSync();
  const pool = new ArrayKvPool(networkLayout, NUM_BLOCKS);
  pool.bytes.fill(1);
  const here = { ...await openEnd("here", naming, { pool, ucx }), pool };
  const peer = await startPeer(naming, ucx);
  try {
    await body({ here, peer, naming });
  } finally {
    await here.backend.close();
    await here.listener.close();
    await kill(peer);
    Deno.removeSync(naming, { recursive: true });
  }
}

async function startPeer(naming: string, ucx?: string): Promise<Peer> {
  const script = `${import.meta.dirname}/_peer.ts`;
  const words = [naming, `${NUM_BLOCKS}`, ...(ucx === undefined ? [] : [ucx])];
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", script, ...words],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = process.stdout.getReader();
  const address = new TextDecoder().decode((await reader.read()).value).trim();
  await reader.cancel();
  const { name } = [...Deno.readDirSync(naming)].find(({ name }) => name.startsWith("peer."))!;
  const { generation } = JSON.parse(Deno.readTextFileSync(`${naming}/${name}`));
  return { process, address, generation, isFar: ucx !== undefined };
}

/** Lets the peer send all its blocks to here. */
async function order({ here, peer }: Ends, isBackground: boolean): Promise<void> {
  await here.backend.grant("m", blocks);
  const writer = peer.process.stdin.getWriter();
  const { endpoint } = here.backend;
  const line: PeerOrder = { address: here.listener.address, endpoint, isBackground };
  await writer.write(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
  writer.releaseLock();
}

/** Revokes, which takes no time, and then sees that nothing is written any more. */
async function revokeForGood({ here: { backend, pool } }: Ends): Promise<void> {
  const startMs = performance.now();
  await backend.revoke("m");
  assert.ok(performance.now() - startMs < 500, "a revocation takes no time");
  assert.equal(pool.bytes.at(-1), 1, "the transfer did not come to its end");
  pool.bytes.fill(2);
}

/** After a while in which a late source may have gone on. */
async function assertUnwritten({ here: { pool } }: Ends): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(pool.bytes.every((byte) => byte === 2));
}

async function kill({ process }: Peer): Promise<void> {
  try {
    process.kill("SIGKILL");
  } catch {
    // It has ended.
  }
  await process.stdin.close().catch(() => {});
  await process.status;
}

/** Pulls all blocks of the peer, slowly if in the background. */
async function pull({ here, peer }: Ends, isBackground: boolean): Promise<void> {
  await here.backend.grant("m", blocks);
  await here.backend.calls.migrate_pull({
    data: {
      migrationId: "m",
      sourceId: "peer",
      generation: peer.generation,
      sourceBlocks: blocks,
      destinationBlocks: blocks,
      timeoutMs: 60_000,
      isBackground,
    },
  });
}

/** Sends all blocks to the peer. */
function send(
  { here, peer }: Ends,
  timeoutMs: number,
  isBackground: boolean,
  signal?: AbortSignal,
) {
  const destination = { instanceId: "peer", backend: here.backend };
  const transfer = transferTo(destination, peer.address, blocks, timeoutMs);
  const endpoint = { ...here.backend.endpoint, ...(peer.isFar && { bootId: farHost.bootId }) };
  const whole = { ...transfer, endpoint, isBackground };
  return here.backend.send(whole, signal ?? new AbortController().signal);
}

async function untilWritten({ here: { pool } }: Ends): Promise<void> {
  while (pool.bytes[0] !== 5) await new Promise((resolve) => setTimeout(resolve, 1));
}

test("all blocks come out of the other's memory, also while the other hangs", async (ends) => {
  const { here: { pool }, peer } = ends;
  await pull(ends, false);
  assert.ok(pool.bytes.every((byte) => byte === 5));
  pool.bytes.fill(1);
  peer.process.kill("SIGSTOP");
  await pull(ends, false);
  assert.ok(pool.bytes.every((byte) => byte === 5));
});

test("a source that is killed ends the pull; its entry is removed", async (ends) => {
  const { here: { backend, pool }, peer, naming } = ends;
  const pulling = pull(ends, true);
  pulling.catch(() => {});
  await untilWritten(ends);
  await kill(peer);
  const startMs = performance.now();
  await assert.rejects(pulling, (error: Error) => {
    assert.ok(error instanceof UnavailableError);
    assert.match(error.message, /read the memory of process \d+: No such process|has ended/);
    return true;
  });
  assert.ok(performance.now() - startMs < 1_000);
  assert.equal(pool.bytes.at(-1), 1, "it did not come to the end");
  await backend.revoke("m");
  assert.deepEqual(NamingDirectory.open(`file:${naming}`).removeStale(thisProcess()), ["peer"]);
  await assert.rejects(pull(ends, false), /peer has no entry/);
});

test("a destination that is killed ends the transfer", async (ends) => {
  await send(ends, 10_000, false);
  const sending = send(ends, 30_000, true);
  sending.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 30));
  const startMs = performance.now();
  await kill(ends.peer);
  await assert.rejects(sending, UnavailableError);
  await assert.rejects(send(ends, 10_000, false), UnavailableError);
  assert.ok(performance.now() - startMs < 1_000);
});

test("a destination that hangs ends the transfer at its deadline, or at an abort", async (ends) => {
  await send(ends, 10_000, false);
  ends.peer.process.kill("SIGSTOP");
  const startMs = performance.now();
  await assert.rejects(send(ends, 300, false), UnavailableError);
  const tookMs = performance.now() - startMs;
  assert.ok(tookMs > 250 && tookMs < 1_300, `gave up after ${tookMs} ms`);
  const controller = new AbortController();
  const sending = send(ends, 30_000, false, controller.signal);
  setTimeout(() => controller.abort(), 20);
  await assert.rejects(sending, /was aborted/);
  ends.peer.process.kill("SIGCONT");
  await send(ends, 10_000, false);
});

ucxTest("all blocks come, at once and in the background", async (ends) => {
  const { pool } = ends.here;
  for (const isBackground of [false, true]) {
    pool.bytes.fill(1);
    await order(ends, isBackground);
    const untilMs = performance.now() + 20_000;
    while (!pool.bytes.every((byte) => byte === 5)) {
      assert.ok(performance.now() < untilMs);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
});

ucxTest("a source that is killed: the blocks can be revoked", async (ends) => {
  await order(ends, true);
  await untilWritten(ends);
  await kill(ends.peer);
  await revokeForGood(ends);
  await assertUnwritten(ends);
});

ucxTest(
  "a source that hangs: the blocks can be revoked, and stay so when it goes on",
  async (ends) => {
    await order(ends, true);
    await untilWritten(ends);
    ends.peer.process.kill("SIGSTOP");
    await revokeForGood(ends);
    ends.peer.process.kill("SIGCONT");
    await assertUnwritten(ends);
  },
);

ucxTest("a destination that is killed, or hangs, ends the transfer in time", async (ends) => {
  await send(ends, 20_000, false);
  ends.peer.process.kill("SIGSTOP");
  const startMs = performance.now();
  await assert.rejects(send(ends, 300, false), UnavailableError);
  assert.ok(performance.now() - startMs < 1_300);
  ends.peer.process.kill("SIGCONT");
  await send(ends, 20_000, false);
  const sending = send(ends, 30_000, true);
  sending.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 30));
  const killedMs = performance.now();
  await kill(ends.peer);
  await assert.rejects(sending, UnavailableError);
  assert.ok(performance.now() - killedMs < 1_000);
});
