/**
 * The kernels of kv.cu, and the two layouts of a KV cache: block-major, where a block is one run, and a
 * layout per layer, where it is 64 of them.
 */
import { blockBytes, Device, expect, found, isShort, rateText, runBytes } from "./device.ts";

const device = new Device();
const { cuda, kernels, stream } = device;
found("loading the PTX", `${device.loadMs.toFixed(1)} ms`);

const sizes = isShort ? [4] : cuda.memGetInfo().freeBytes > 8 * 2 ** 30 ? [64, 1024] : [64];
for (const blocks of sizes) measure(blocks);
kernels.close();

function measure(blocks: number): void {
  const bytes = blocks * blockBytes, seed = blocks;
  const source = cuda.malloc(bytes), destination = cuda.malloc(bytes);
  device.fill(source, blocks, seed);
  expect(device.wrongVectors(source, blocks, seed) === 0, "the kernel's own pattern");
  cuda.memset(source + 64n, 0x5a, 16, stream);
  expect(device.wrongVectors(source, blocks, seed) === 1, "one vector was changed, not one seen");
  device.fill(source, blocks, seed);

  const repeats = isShort ? 1 : 10;
  const ways: [string, () => void][] = [
    ["one copy (the ceiling)", () => cuda.copy(destination, source, bytes, stream)],
    ["block-major, batched copies of 2 MiB", batched(source, destination, bytes, blockBytes)],
    ["per layer, batched copies of 32 KiB", batched(source, destination, bytes, runBytes)],
    ["block-major, kernel", byKernel(source, destination, bytes, blockBytes)],
    ["per layer, kernel", byKernel(source, destination, bytes, runBytes)],
  ];
  for (const [name, copy] of ways) {
    cuda.memset(destination, 0, bytes, stream);
    const tookMs = device.time(repeats, copy);
    expect(device.wrongVectors(destination, blocks, seed) === 0, `${name}: bytes`);
    found(`${blocks} blocks, ${name}`, `${rateText(bytes, tookMs)}, ${tookMs.toFixed(3)} ms`);
  }
  cuda.free(source);
  cuda.free(destination);
}

function batched(source: bigint, destination: bigint, bytes: number, run: number): () => void {
  const count = bytes / run;
  const places = (at: bigint) =>
    BigUint64Array.from({ length: count }, (_, i) => at + BigInt(i * run));
  const [to, from, sizes] = [
    places(destination),
    places(source),
    new BigUint64Array(count).fill(BigInt(run)),
  ];
  return () => cuda.copyBatch(to, from, sizes, count, stream);
}

function byKernel(source: bigint, destination: bigint, bytes: number, run: number): () => void {
  const count = bytes / run;
  const places = (at: bigint) =>
    device.table(BigUint64Array.from({ length: count }, (_, i) => at + BigInt(i * run)));
  const tables = {
    destinations: places(destination),
    sources: places(source),
    byteLengths: device.table(new Uint32Array(count).fill(run)),
  };
  return () => kernels.copy(tables, count, run, stream);
}
