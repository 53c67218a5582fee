/** libnccl: one rank that sends to itself, and two processes on one device, if this NCCL allows that. */
import { Nccl, NcclError } from "../../ffi/nccl/nccl.ts";
import { blockBytes, Device, expect, found, isShort, rateText } from "./device.ts";
import { order, Peer, say } from "./peers.ts";

const blocks = isShort ? 4 : 64, repeats = isShort ? 1 : 5;
const bytes = blocks * blockBytes;
/** Of a communicator, or of one transfer. */
const LIMIT_MS = 20_000;

if (Deno.args.length === 0) await first();
else await second();

async function first(): Promise<void> {
  const device = new Device(), nccl = Nccl.open();
  found("libnccl", `${nccl.versionText} at ${nccl.library.path}`);
  await oneRank(device, nccl);
  await twoProcesses(device, nccl);
}

async function oneRank(device: Device, nccl: Nccl): Promise<void> {
  const { cuda, stream } = device;
  const before = cuda.memGetInfo().freeBytes;
  const communicator = await open(nccl, 1, nccl.uniqueId(), 0);
  const took = before - cuda.memGetInfo().freeBytes;
  const from = cuda.malloc(bytes), to = cuda.malloc(bytes);
  device.fill(from, blocks, 1);
  const transfer = () => {
    nccl.groupStart();
    nccl.send(from, bytes, 0, communicator, stream);
    nccl.receive(to, bytes, 0, communicator, stream);
    nccl.groupEnd();
  };
  let tookMs = 0;
  for (let i = 0; i <= repeats; i++) {
    const startMs = performance.now();
    transfer();
    await settled(nccl, communicator);
    cuda.synchronizeStream(stream);
    if (i > 0) tookMs += (performance.now() - startMs) / repeats;
  }
  expect(device.wrongVectors(to, blocks, 1) === 0, "what one rank sent to itself");
  found("one rank, device memory of the communicator", `${(took / 2 ** 20).toFixed(1)} MiB`);
  found(`one rank to itself, ${bytes >> 20} MiB`, rateText(bytes, tookMs));
  await nccl.abort(communicator);
}

async function twoProcesses(device: Device, nccl: Nccl): Promise<void> {
  const env = { NCCL_SOCKET_IFNAME: "lo" };
  const id = nccl.uniqueId().toHex();
  // Without ids of their own NCCL sees two ranks on one device, and refuses them.
  await using source = new Peer("nccl.ts", { id, rank: 0 }, { ...env, NCCL_HOSTID: "source" });
  await using destination = new Peer("nccl.ts", { id, rank: 1 }, {
    ...{ ...env, NCCL_HOSTID: "destination" },
  });
  const name = "two processes with host ids of their own";
  const [sent, received] = await Promise.all(
    [source, destination].map((peer) =>
      peer.next<{ refused?: string; tookMs: number; wrong: number }>()
    ),
  );
  const refused = sent.refused ?? received.refused;
  if (refused !== undefined) {
    found(name, `refused: ${refused}`);
    expect(!device.cuda.library.softwareDevice, "the software device allows them");
    return;
  }
  expect(received.wrong === 0, `${received.wrong} vectors came over wrong`);
  found(`${name}, ${bytes >> 20} MiB over sockets`, rateText(bytes, received.tookMs));
}

/** One of the two processes. */
async function second(): Promise<void> {
  const { id, rank } = order() as { id: string; rank: number };
  const device = new Device(), nccl = Nccl.open();
  const { cuda, stream } = device;
  const pool = cuda.malloc(bytes);
  if (rank === 0) device.fill(pool, blocks, 7);
  try {
    const communicator = await open(nccl, 2, Uint8Array.fromHex(id), rank);
    const startMs = performance.now();
    nccl.groupStart();
    if (rank === 0) nccl.send(pool, bytes, 1, communicator, stream);
    else nccl.receive(pool, bytes, 0, communicator, stream);
    nccl.groupEnd();
    await settled(nccl, communicator);
    cuda.synchronizeStream(stream);
    const tookMs = performance.now() - startMs;
    say({ tookMs, wrong: device.wrongVectors(pool, blocks, 7) });
  } catch (error) {
    if (!(error instanceof NcclError)) throw error;
    say({ refused: error.message, tookMs: 0, wrong: 0 });
  }
  setInterval(() => {}, 1_000); // the first process ends both, after it has heard of both
}

async function open(
  nccl: Nccl,
  ranks: number,
  id: Uint8Array<ArrayBuffer>,
  rank: number,
): Promise<bigint> {
  const communicator = nccl.initRank(ranks, id, rank);
  await settled(nccl, communicator);
  return communicator;
}

/** Resolves when NCCL's call is over. */
async function settled(nccl: Nccl, communicator: bigint): Promise<void> {
  const endMs = performance.now() + LIMIT_MS;
  while (nccl.asyncState(communicator) !== "success") {
    expect(performance.now() < endMs, `NCCL was still at it after ${LIMIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
