/**
 * Stress of the merge of attention's parts: the last block of a row and head to end, by a counter in device memory,
 * merges what the others have written. Two processes keep one device busy, so that blocks end in every order; each
 * launch must give the bits of the first one and leave the counters at zero.
 */
import { DecoderKernels, fastPaths } from "../../ffi/cuda_kernels/decoder_kernels.ts";
import { addressOf, nativeBuffer } from "../../ffi/memory.ts";
import { Random } from "../../src/core/random.ts";
import { Device, expect, found, isShort } from "./device.ts";
import { Peer, say } from "./peers.ts";
import { tablesOf } from "./tables.ts";

const shape = isShort
  ? { heads: 2, kvHeads: 1, headDim: 16 }
  : { heads: 32, kvHeads: 8, headDim: 128 };
const sequences = isShort ? 1 : 3, length = isShort ? 600 : 4000, blockShift = 4;
/** Launches that follow each other without a look at their results. */
const launches = isShort ? 2 : 32;
const forMs = isShort ? 200 : 6_000;

async function first(): Promise<void> {
  await using peer = new Peer("merge.ts", { seed: 2 });
  await peer.next(); // its kernels are loaded
  const own = stress(1);
  const other = await peer.next<{ rounds: number }>();
  found(
    "launches by two processes at once",
    `${own * launches} and ${other.rounds * launches} of ${
      Math.ceil(length / 256)
    } parts: the same bits`,
  );
}

/** Launches until the time is over. @returns rounds of {@linkcode launches} */
function stress(seed: number, onLoaded = () => {}): number {
  const device = new Device(), { cuda, stream } = device, info = cuda.deviceInfo(0);
  const random = new Random(seed);
  const { heads, kvHeads, headDim } = shape, width = (heads + 2 * kvHeads) * headDim;
  const upload = (bytes: Uint8Array<ArrayBuffer>) => {
    const at = cuda.malloc(bytes.length);
    cuda.copy(at, addressOf(bytes), bytes.length, stream);
    cuda.synchronizeStream(stream);
    return at;
  };
  /** Numbers between -1 and 1, as bfloat16 or float32. */
  const randomNumbers = (count: number, bytes: 2 | 4) => {
    const buffer = nativeBuffer(count * bytes);
    if (bytes === 4) {
      new Float32Array(buffer.buffer).forEach((_, i, all) => all[i] = random.uniform() * 2 - 1);
    } else {
      // Exponents of 1/8 to 1/2, any sign and mantissa.
      new Uint16Array(buffer.buffer).forEach((_, i, all) =>
        all[i] = random.below(2) << 15 | (124 + random.below(3)) << 7 | random.below(128)
      );
    }
    return upload(buffer);
  };
  const words = (values: readonly number[]) => {
    const buffer = nativeBuffer(values.length * 4);
    new Int32Array(buffer.buffer).set(values);
    return upload(buffer);
  };
  // So many multiprocessors that parts are computed apart, also on a small device.
  const on = { ...info, multiprocessors: Math.max(info.multiprocessors, sequences * kvHeads) };
  const kernels = new DecoderKernels("bfloat16", shape, on, stream, fastPaths);
  const tables = tablesOf(words, blockShift, sequences, 1, length);
  const blockStride = 2 * kvHeads * headDim << blockShift;
  const cache = {
    address: randomNumbers(sequences * tables.maxBlocks * blockStride, 2),
    ...{ blockStride, blockShift },
  };
  const [qkv, rope] = [randomNumbers(sequences * width, 4), randomNumbers(length * headDim, 4)];
  const partialsBytes = kernels.partialsBytes(length);
  const zeros = nativeBuffer(kernels.countersBytes).fill(0);
  const options = {
    ...{ window: 0, partials: cuda.malloc(partialsBytes), partialsBytes },
    counters: upload(zeros),
  };
  const outputBytes = sequences * heads * headDim * 2,
    norms = { query: 0n, key: 0n, epsilon: 1e-5 };
  const outputs = cuda.malloc(launches * outputBytes), host = nativeBuffer(launches * outputBytes);
  let expected: Uint8Array | null = null, rounds = 0;
  onLoaded();
  const untilMs = performance.now() + forMs;
  for (; performance.now() < untilMs; rounds++) {
    cuda.memset(outputs, 0xff, launches * outputBytes, stream);
    for (let i = 0; i < launches; i++) {
      const output = outputs + BigInt(i * outputBytes);
      kernels.attention(qkv, norms, rope, tables, cache, output, options);
    }
    cuda.copy(addressOf(host), outputs, host.length, stream);
    cuda.copy(addressOf(zeros), options.counters, zeros.length, stream);
    cuda.synchronizeStream(stream);
    expected ??= host.slice(0, outputBytes);
    for (let i = 0; i < host.length; i++) {
      if (host[i] === expected[i % outputBytes]) continue;
      expect(
        false,
        `launch ${rounds * launches + Math.floor(i / outputBytes)} has other bits than the first`,
      );
    }
    expect(zeros.every((byte) => byte === 0), `counters after ${rounds + 1} rounds`);
  }
  const numbers = new Uint16Array(expected!.buffer);
  expect(numbers.some((bits) => bits !== numbers[0]), "the results are not all alike");
  expect(numbers.every((bits) => (bits & 0x7f80) !== 0x7f80), "the results are finite");
  return rounds;
}

if (Deno.args.length === 0) await first();
else {
  const rounds = stress(2, () => say({ loaded: true }));
  say({ rounds });
}
