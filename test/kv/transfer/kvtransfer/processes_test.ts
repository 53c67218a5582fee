/** Two processes of which one is killed or hangs. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../../../src/core/errors.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { thisProcess } from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { NamingDirectory } from "../../../../src/kv/transfer/kvtransfer/naming.ts";
import { ENDLESS_MS, PATIENCE_MS, pause, until, watch, within } from "../../../patience.ts";
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

/**
 * What a test came to. On a busy machine a transfer may be over before the test disturbs it: then it proves
 * nothing, and begins anew.
 */
type Outcome = void | "too late";

const ATTEMPTS = 5;

function test(name: string, body: (ends: Ends) => Promise<Outcome>): void {
  Deno.test(`kvtransfer between processes: ${name}`, () => withEnds(body));
}

/** By UCX: the other process passes for one of another host. */
function ucxTest(name: string, body: (ends: Ends) => Promise<Outcome>): void {
  const title = `kvtransfer between processes, by UCX: ${name}`;
  realTest(libraries.ucp, title, (file) => withEnds(body, file));
}

async function withEnds(body: (ends: Ends) => Promise<Outcome>, ucx?: string): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (await attemptWithEnds(body, ucx) !== "too late") return;
  }
  assert.fail(`each of ${ATTEMPTS} transfers was over before it was disturbed`);
}

async function attemptWithEnds(
  body: (ends: Ends) => Promise<Outcome>,
  ucx?: string,
): Promise<Outcome> {
  const naming = Deno.makeTempDirSync();
  const pool = new ArrayKvPool(networkLayout, NUM_BLOCKS);
  pool.bytes.fill(1);
  const here = { ...await openEnd("here", naming, { pool, ucx }), pool };
  const peer = await startPeer(naming, ucx);
  try {
    return await body({ here, peer, naming });
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

/** Lets the peer send blocks to here; all of them, if no others are named. */
async function order(
  { here, peer }: Ends,
  isBackground: boolean,
  migrationId = "m",
  sent: readonly number[] = blocks,
): Promise<void> {
  await here.backend.grant(migrationId, sent);
  const writer = peer.process.stdin.getWriter();
  const { endpoint } = here.backend;
  const line: PeerOrder = {
    ...{ migrationId, blocks: sent, endpoint, isBackground },
    address: here.listener.address,
  };
  await writer.write(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
  writer.releaseLock();
}

/** Revokes in the middle of a transfer, and marks the blocks, which nobody may write any more. */
async function revokeForGood({ here: { backend, pool } }: Ends): Promise<Outcome> {
  await within(backend.revoke("m"), "the revocation");
  const isOver = pool.bytes.at(-1) !== 1;
  pool.bytes.fill(2);
  if (isOver) return "too late";
}

/** After a while in which a late source may have gone on. */
async function assertUnwritten({ here: { pool } }: Ends): Promise<void> {
  await pause(300);
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
      timeoutMs: ENDLESS_MS,
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
  await until(() => pool.bytes[0] === 5, "the first block is written", 1);
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
  const error = await within(pulling.then(() => null, (error) => error), "the pull ends");
  if (error === null) return "too late";
  assert.ok(error instanceof UnavailableError);
  assert.match(error.message, /read the memory of process \d+: No such process|has ended/);
  assert.equal(pool.bytes.at(-1), 1, "it did not come to the end");
  await backend.revoke("m");
  assert.deepEqual(NamingDirectory.open(`file:${naming}`).removeStale(thisProcess()), ["peer"]);
  await assert.rejects(pull(ends, false), /peer has no entry/);
});

test("a destination that is killed ends the transfer", async (ends) => {
  await send(ends, PATIENCE_MS, false);
  if (await killMidway(ends) === "too late") return "too late";
  const again = send(ends, ENDLESS_MS, false);
  await assert.rejects(within(again, "the next transfer ends"), UnavailableError);
});

/** Kills the destination in the middle of a transfer, which ends long before its deadline. */
async function killMidway(ends: Ends): Promise<Outcome> {
  const sending = send(ends, ENDLESS_MS, true);
  const state = watch(sending);
  await pause(30);
  if (state.isSettled) return "too late";
  await kill(ends.peer);
  const error = await within(sending.then(() => null, (error) => error), "the transfer ends");
  if (error === null) return "too late";
  assert.ok(error instanceof UnavailableError);
}

test("a destination that hangs ends the transfer at its deadline, or at an abort", async (ends) => {
  await send(ends, PATIENCE_MS, false);
  ends.peer.process.kill("SIGSTOP");
  await assert.rejects(within(send(ends, 300, false), "the transfer ends"), UnavailableError);
  const controller = new AbortController();
  const sending = send(ends, ENDLESS_MS, false, controller.signal);
  setTimeout(() => controller.abort(), 20);
  await assert.rejects(within(sending, "the transfer ends"), /was aborted/);
  ends.peer.process.kill("SIGCONT");
  await send(ends, PATIENCE_MS, false);
});

ucxTest("all blocks come, at once and in the background", async (ends) => {
  const { pool } = ends.here;
  for (const isBackground of [false, true]) {
    pool.bytes.fill(1);
    await order(ends, isBackground);
    await until(() => pool.bytes.every((byte) => byte === 5), "all blocks have come", 20);
  }
});

ucxTest("a source that is killed: the blocks can be revoked", async (ends) => {
  await order(ends, true);
  await untilWritten(ends);
  await kill(ends.peer);
  if (await revokeForGood(ends) === "too late") return "too late";
  await assertUnwritten(ends);
});

ucxTest(
  "a source that hangs: the blocks can be revoked, and stay so when it goes on",
  async (ends) => {
    // At full speed, so that UCX is within a read when the source hangs.
    await order(ends, false);
    await untilWritten(ends);
    ends.peer.process.kill("SIGSTOP");
    if (await revokeForGood(ends) === "too late") return "too late";
    ends.peer.process.kill("SIGCONT");
    await assertUnwritten(ends);
    // UCX writes what has come only while it makes progress: another transfer lets it.
    await order(ends, false, "n", [0]);
    await untilWritten(ends);
    const { bytes } = ends.here.pool;
    assert.ok(bytes.subarray(bytes.length / NUM_BLOCKS).every((byte) => byte === 2));
  },
);

ucxTest("a destination that is killed, or hangs, ends the transfer", async (ends) => {
  await send(ends, PATIENCE_MS, false);
  ends.peer.process.kill("SIGSTOP");
  await assert.rejects(within(send(ends, 300, false), "the transfer ends"), UnavailableError);
  ends.peer.process.kill("SIGCONT");
  await send(ends, PATIENCE_MS, false);
  return await killMidway(ends);
});
