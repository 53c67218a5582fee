/**
 * Blocks between the device pools of two processes, by CUDA's IPC handles: what the destination pulls, as
 * `--migration-backend-transfer-type cuda_ipc` does, against what the source would push. Between two devices
 * where the host has two.
 */
import { blockBytes, Device, expect, found, isShort, rateText, reached } from "./device.ts";
import { order, Peer, say } from "./peers.ts";

const blocks = isShort ? 4 : 512, rounds = isShort ? 1 : 5, repeats = isShort ? 1 : 4;
const bytes = blocks * blockBytes;
/** Blocks of one call, as `kvtransfer/cuda_ipc.ts` cuts a transfer. */
const blocksPerCall = 8;

interface Outcome {
  readonly wrong: number;
  readonly openMs: number;
  readonly devices: number;
  /** Medians of the rounds. */
  readonly pullMs: number;
  readonly pushMs: number;
  readonly ceilingMs: number;
}

if (Deno.args.length === 0) await first();
else second();

async function first(): Promise<void> {
  const device = new Device();
  const { cuda } = device;
  const pool = cuda.malloc(bytes);
  device.fill(pool, blocks, 1);
  await using peer = new Peer("ipc.ts", { handle: cuda.ipcMemHandle(pool).toHex() });
  const { wrong, openMs, devices, pullMs, pushMs, ceilingMs } = await peer.next<Outcome>();
  expect(wrong === 0, `the other process read ${wrong} wrong vectors`);
  expect(device.wrongVectors(pool, blocks, 2) === 0, "what the other process wrote");
  const size = `${bytes >> 20} MiB`, on = devices > 1 ? "two devices" : "one device";
  found(`${size}, copy inside one process (the ceiling)`, rateText(bytes, ceilingMs));
  found("opening a handle", `${openMs.toFixed(2)} ms`);
  found(`${size}, the destination pulls, ${on}`, rateText(bytes, pullMs));
  found(`${size}, the source pushes, ${on}`, rateText(bytes, pushMs));
  reached("cuda-ipc", ceilingMs / pullMs);
  found("pushing against pulling", `${(pullMs / pushMs).toFixed(2)} times as fast`);
}

/** The other process: pulls pattern 1, pushes pattern 2, in turns, on the last device. */
function second(): void {
  const devices = new Device().cuda.deviceCount();
  const device = new Device(devices - 1);
  const { cuda, stream } = device;
  const startMs = performance.now();
  const theirs = cuda.openIpcMemHandle(Uint8Array.fromHex(order().handle));
  const openMs = performance.now() - startMs;
  const own = cuda.malloc(bytes), other = cuda.malloc(bytes), source = cuda.malloc(bytes);
  device.fill(source, blocks, 2);
  copyBlocks(own, theirs);
  cuda.synchronizeStream(stream);
  const wrong = device.wrongVectors(own, blocks, 1);
  const times = { pull: [] as number[], push: [] as number[], ceiling: [] as number[] };
  for (let round = 0; round < rounds; round++) {
    times.pull.push(device.time(repeats, () => copyBlocks(own, theirs)));
    times.push.push(device.time(repeats, () => copyBlocks(theirs, source)));
    times.ceiling.push(device.time(repeats, () => copyBlocks(other, own)));
  }
  cuda.closeIpcMemHandle(theirs);
  const [pullMs, pushMs, ceilingMs] = [times.pull, times.push, times.ceiling].map(median);
  say({ wrong, openMs, devices, pullMs, pushMs, ceilingMs } satisfies Outcome);

  /** Block by block, as between pools in which the blocks of a request are scattered. */
  function copyBlocks(to: bigint, from: bigint): void {
    for (let start = 0; start < blocks; start += blocksPerCall) {
      const count = Math.min(blocksPerCall, blocks - start);
      const at = (pool: bigint) =>
        BigUint64Array.from({ length: count }, (_, i) => pool + BigInt((start + i) * blockBytes));
      const lengths = new BigUint64Array(count).fill(BigInt(blockBytes));
      cuda.copyBatch(at(to), at(from), lengths, count, stream);
    }
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
