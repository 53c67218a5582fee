/** Blocks between the device pools of two processes, by CUDA's IPC handles. */
import { blockBytes, Device, expect, found, isShort, rateText } from "./device.ts";
import { order, Peer, say } from "./peers.ts";

const blocks = isShort ? 4 : 512, repeats = isShort ? 1 : 10;
const bytes = blocks * blockBytes;

if (Deno.args.length === 0) await first();
else second();

async function first(): Promise<void> {
  const device = new Device();
  const { cuda } = device;
  const pool = cuda.malloc(bytes);
  device.fill(pool, blocks, 1);
  await using peer = new Peer("ipc.ts", { handle: cuda.ipcMemHandle(pool).toHex() });
  const { wrong, openMs, pullMs, pushMs, ceilingMs } = await peer.next<Record<string, number>>();
  expect(wrong === 0, `the other process read ${wrong} wrong vectors`);
  expect(device.wrongVectors(pool, blocks, 2) === 0, "what the other process wrote");
  const size = `${bytes >> 20} MiB`;
  found(`${size}, copy inside one process (the ceiling)`, rateText(bytes, ceilingMs));
  found("opening a handle", `${openMs.toFixed(2)} ms`);
  found(`${size}, the destination pulls`, rateText(bytes, pullMs));
  found(`${size}, the source pushes`, rateText(bytes, pushMs));
}

/** The other process: pulls pattern 1, pushes pattern 2. */
function second(): void {
  const device = new Device();
  const { cuda, stream } = device;
  const startMs = performance.now();
  const theirs = cuda.openIpcMemHandle(Uint8Array.fromHex(order().handle));
  const openMs = performance.now() - startMs;
  const own = cuda.malloc(bytes), other = cuda.malloc(bytes);
  const pullMs = device.time(repeats, () => cuda.copy(own, theirs, bytes, stream));
  const wrong = device.wrongVectors(own, blocks, 1);
  const ceilingMs = device.time(repeats, () => cuda.copy(other, own, bytes, stream));
  device.fill(own, blocks, 2);
  const pushMs = device.time(repeats, () => cuda.copy(theirs, own, bytes, stream));
  cuda.closeIpcMemHandle(theirs);
  say({ wrong, openMs, pullMs, pushMs, ceilingMs });
}
