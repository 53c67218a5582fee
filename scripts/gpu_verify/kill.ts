/** kill -9 of a process in the middle of a transfer by CUDA's IPC handles, on either side. */
import { CudaError } from "../../ffi/cuda/errors.ts";
import { blockBytes, Device, expect, found, isShort } from "./device.ts";
import { order, Peer, say } from "./peers.ts";

const blocks = isShort ? 4 : 512, rounds = isShort ? 1 : 3;
const bytes = blocks * blockBytes;

if (Deno.args.length === 0) await first();
else if (order().role === "destination") pull();
else hold();

async function first(): Promise<void> {
  const device = new Device();
  const { cuda } = device;
  const pool = cuda.malloc(bytes);
  device.fill(pool, blocks, 1);
  const handle = cuda.ipcMemHandle(pool).toHex();
  for (let round = 0; round < rounds; round++) {
    await using peer = new Peer("kill.ts", { role: "destination", handle });
    await peer.next();
    await peer.kill();
    cuda.checkDevice();
    expect(device.wrongVectors(pool, blocks, 1) === 0, "the source's blocks after the kill");
  }
  found("destination killed while it pulls", `${rounds} times: the source's blocks are whole`);
  await killSource(device, pool);
  device.fill(pool, blocks, 3);
  expect(device.wrongVectors(pool, blocks, 3) === 0, "the device works on");
  found("after the kills", "the device works on");
}

/** The source dies while its memory is mapped here. What then happens is the driver's business. */
async function killSource(device: Device, pool: bigint): Promise<void> {
  const { cuda, stream } = device;
  await using peer = new Peer("kill.ts", { role: "source" });
  const { handle } = await peer.next<{ handle: string }>();
  const theirs = cuda.openIpcMemHandle(Uint8Array.fromHex(handle));
  cuda.copy(pool, theirs, bytes, stream);
  await peer.kill();
  let outcome = "the copy that was under way ended";
  try {
    cuda.synchronizeStream(stream);
    cuda.copy(pool, theirs, bytes, stream);
    cuda.synchronizeStream(stream);
    const wrong = device.wrongVectors(pool, blocks, 2);
    outcome = `its memory stays mapped: a later copy has ${wrong} wrong vectors`;
  } catch (error) {
    if (!(error instanceof CudaError)) throw error;
    outcome = error.message;
  }
  found("source killed while the destination pulls", outcome);
  cuda.closeIpcMemHandle(theirs);
  cuda.checkDevice();
}

/** Pulls until it is killed. */
function pull(): void {
  const { cuda, stream } = new Device();
  const theirs = cuda.openIpcMemHandle(Uint8Array.fromHex(order().handle));
  const own = cuda.malloc(bytes);
  say({ pulling: true });
  for (;;) {
    cuda.copy(own, theirs, bytes, stream);
    cuda.synchronizeStream(stream);
  }
}

/** Has a pool until it is killed. */
function hold(): void {
  const device = new Device();
  const pool = device.cuda.malloc(bytes);
  device.fill(pool, blocks, 2);
  say({ handle: device.cuda.ipcMemHandle(pool).toHex() });
  setInterval(() => {}, 1_000);
}
