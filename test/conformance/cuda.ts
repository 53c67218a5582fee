/**
 * What every implementation of `Cuda` has to do. The suite knows nothing of the device behind it: it
 * runs over the software device, and over a GPU where there is one.
 */
import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import type { Cuda } from "../../ffi/cuda/cuda.ts";
import { CudaError, OutOfMemoryError } from "../../ffi/cuda/errors.ts";
import { addressOf, bytesAt, nativeBuffer } from "../../ffi/memory.ts";
import type { PeerAnswer, PeerOrder } from "./cuda_peer.ts";
import { PATIENCE_MS } from "../patience.ts";

/** An implementation under test. */
export interface CudaUnderTest {
  readonly name: string;
  readonly api: "runtime" | "driver";
  /** Directory of its libraries; the system's if it is undefined. */
  readonly from?: string;
  /** Why it cannot be tested here; null if it can. */
  readonly unavailable: string | null;
  open(): Cuda;
  /** Environment of other processes. */
  readonly environment?: Readonly<Record<string, string>>;
}

const KiB = 1024;

/** Registers the suite's tests; an unavailable implementation is reported as one ignored test. */
export function cudaConformance(under: CudaUnderTest): void {
  if (under.unavailable !== null) {
    Deno.test({
      name: `${under.name} (the suite is skipped: ${under.unavailable})`,
      ignore: true,
      fn: () => {},
    });
    return;
  }
  const test = (name: string, run: (cuda: Cuda) => void | Promise<void>) =>
    Deno.test(`${under.name}: ${name}`, async () => {
      const cuda = under.open();
      cuda.setDevice(0);
      await run(cuda);
    });

  test("says what it is and which devices there are", (cuda) => {
    assert.equal(cuda.library.api, under.api);
    assert.equal(cuda.library.name, under.api === "runtime" ? "libcudart" : "libcuda");
    assert.ok(cuda.library.version >= 11000, String(cuda.library.version));
    assert.ok(cuda.driverVersion() >= 11000);
    const count = cuda.deviceCount();
    assert.ok(count >= 1);
    const infos = Array.from({ length: count }, (_, device) => cuda.deviceInfo(device));
    for (const [device, info] of infos.entries()) {
      assert.equal(info.ordinal, device);
      assert.notEqual(info.name, "");
      assert.match(info.uuid, /^GPU-[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/);
      assert.match(info.pciBusId, /^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.0$/);
      assert.ok(info.computeCapability[0] >= 5, String(info.computeCapability));
      assert.ok(info.multiprocessors >= 1);
      assert.ok(info.sharedMemoryPerBlockBytes >= 48 * KiB);
      assert.ok(info.totalBytes > 0);
    }
    assert.equal(new Set(infos.map((info) => info.uuid)).size, count);
    assert.throws(() => cuda.setDevice(count), isCudaError(/invalid device/i, 101));
    cuda.setDevice(0);
    cuda.checkDevice();
  });

  test("memory is taken and given back", (cuda) => {
    const before = cuda.memGetInfo();
    assert.ok(before.freeBytes <= before.totalBytes);
    const first = cuda.malloc(32 * KiB * KiB), second = cuda.malloc(1);
    assert.notEqual(first, second);
    assert.equal(first % 256n, 0n);
    assert.ok(cuda.memGetInfo().freeBytes <= before.freeBytes - 32 * KiB * KiB);
    cuda.free(first);
    cuda.free(second);
    assert.ok(cuda.memGetInfo().freeBytes > before.freeBytes - 32 * KiB * KiB);
    for (const wrong of [0, -1, 1.5, NaN, 2 ** 60]) {
      assert.throws(() => cuda.malloc(wrong), RangeError);
      assert.throws(() => cuda.hostAlloc(wrong), RangeError);
    }
    assert.throws(() => cuda.free(first), isCudaError(/invalid argument/, 1));
  });

  test("too large an allocation says what is needed and what is free", (cuda) => {
    const { freeBytes, totalBytes } = cuda.memGetInfo();
    const needed = totalBytes + KiB;
    let caught: unknown;
    try {
      cuda.malloc(needed);
    } catch (error) {
      caught = error;
    }
    assert.ok(caught instanceof OutOfMemoryError);
    assert.equal(caught.code, 2);
    assert.equal(caught.kind, "device");
    assert.equal(caught.neededBytes, needed);
    assert.equal(caught.totalBytes, totalBytes);
    assert.ok(caught.freeBytes! <= totalBytes && caught.freeBytes! >= freeBytes / 2);
    assert.match(caught.message, /out of memory.*of device memory are needed, .* are free of /);
    cuda.free(cuda.malloc(KiB));
  });

  test("bytes go to the device and come back, from every kind of host memory", (cuda) => {
    const bytes = 3 * KiB * KiB + 7;
    const device = cuda.malloc(bytes), pinned = cuda.hostAlloc(bytes);
    const pageable = nativeBuffer(bytes), stream = cuda.createStream();
    fill(bytesAt(pinned, bytes), 1);
    cuda.copy(device, pinned, bytes, stream);
    cuda.copy(addressOf(pageable), device, bytes, stream);
    cuda.synchronizeStream(stream);
    assert.ok(same(pageable, bytesAt(pinned, bytes)));
    fill(pageable, 2);
    cuda.copy(device + 5n, addressOf(pageable), bytes - 5, stream);
    cuda.copy(pinned, device + 5n, bytes - 5, stream);
    cuda.synchronizeStream(stream);
    assert.ok(same(bytesAt(pinned, bytes - 5), pageable.subarray(0, bytes - 5)));
    cuda.copy(device, device + 5n, 3, stream);
    cuda.copy(pinned, device, 3, stream);
    cuda.synchronizeStream(stream);
    assert.ok(same(bytesAt(pinned, 3), pageable.subarray(0, 3)));
    assert.ok(cuda.hostDevicePointer(pinned) !== 0n);
    cuda.hostFree(pinned);
    cuda.free(device);
    cuda.destroyStream(stream);
  });

  test("memset fills a range and no more", (cuda) => {
    const device = cuda.malloc(KiB), stream = cuda.createStream(), back = nativeBuffer(KiB);
    cuda.memset(device, 0, KiB, stream);
    cuda.memset(device + 100n, 0xab, 200, stream);
    cuda.copy(addressOf(back), device, KiB, stream);
    cuda.synchronizeStream(stream);
    const expected = new Uint8Array(KiB).fill(0xab, 100, 300);
    assert.ok(same(back, expected));
    cuda.free(device);
    cuda.destroyStream(stream);
  });

  test("a batch copies every piece", (cuda) => {
    const block = 4 * KiB, blocks = 64;
    const source = cuda.malloc(block * blocks), target = cuda.malloc(block * blocks);
    const host = cuda.hostAlloc(block * blocks), stream = cuda.createStream();
    const bytes = bytesAt(host, block * blocks);
    for (let i = 0; i < blocks; i++) bytes.fill(i + 1, i * block, (i + 1) * block);
    cuda.copy(source, host, block * blocks, stream);
    cuda.memset(target, 0, block * blocks, stream);
    // Each second block, in turned order, to places that are next to each other; one short piece.
    const count = blocks / 2;
    const indices = Array.from({ length: count }, (_, i) => BigInt(blocks - 2 - 2 * i));
    const from = BigUint64Array.from(indices, (index) => source + index * BigInt(block));
    const to = BigUint64Array.from(indices, (_, i) => target + BigInt(i * block));
    const sizes = new BigUint64Array(count).fill(BigInt(block));
    sizes[count - 1] = 10n;
    cuda.copyBatch(to, from, sizes, count, stream);
    cuda.copyBatch(to, from, sizes, 0, stream);
    cuda.copy(host, target, block * blocks, stream);
    cuda.synchronizeStream(stream);
    for (let i = 0; i < count; i++) {
      const length = i === count - 1 ? 10 : block;
      const piece = bytes.subarray(i * block, (i + 1) * block);
      const expected = new Uint8Array(block).fill(Number(indices[i]) + 1, 0, length);
      assert.ok(same(piece, expected), `block ${i}`);
    }
    assert.ok(bytes.subarray(count * block).every((byte) => byte === 0), "no more than asked for");
    for (const wrong of [-1, 1.5, count + 1]) {
      assert.throws(() => cuda.copyBatch(to, from, sizes, wrong, stream), RangeError);
    }
    cuda.copyBatch(to, from, sizes, 1, 0n);
    cuda.copyBatch(to, from, sizes, 2, 0n);
    cuda.synchronizeStream(0n);
    for (const address of [source, target]) cuda.free(address);
    cuda.hostFree(host);
    cuda.destroyStream(stream);
  });

  test("a stream waits for an event of another one", async (cuda) => {
    const bytes = 8 * KiB * KiB, { least, greatest } = cuda.priorityRange();
    assert.ok(least >= greatest);
    const low = cuda.createStream({ priority: least });
    const high = cuda.createStream({ priority: greatest });
    const device = cuda.malloc(bytes), back = cuda.hostAlloc(bytes);
    const written = cuda.createEvent(), read = cuda.createEvent({ blockingSync: true });
    assert.equal(cuda.queryEvent(written), true, "an event without a record is done");
    cuda.memset(device, 0x5a, bytes, low);
    cuda.recordEvent(written, low);
    cuda.waitEvent(high, written);
    cuda.copy(back, device, bytes, high);
    cuda.recordEvent(read, high);
    await until(() => cuda.queryEvent(read));
    assert.ok(bytesAt(back, bytes).every((byte) => byte === 0x5a));
    assert.equal(cuda.queryEvent(written), true);
    await until(() => cuda.queryStream(high) && cuda.queryStream(low));
    cuda.synchronizeEvent(read);
    for (const event of [written, read]) cuda.destroyEvent(event);
    for (const stream of [low, high]) cuda.destroyStream(stream);
    cuda.free(device);
    cuda.hostFree(back);
  });

  test("events measure time if they are made for it", (cuda) => {
    const stream = cuda.createStream(), device = cuda.malloc(KiB);
    const start = cuda.createEvent({ timing: true }), end = cuda.createEvent({ timing: true });
    cuda.recordEvent(start, stream);
    cuda.memset(device, 0, KiB, stream);
    cuda.recordEvent(end, stream);
    cuda.synchronizeEvent(end);
    const ms = cuda.elapsedMs(start, end);
    assert.ok(ms >= 0 && ms < 10_000, String(ms));
    const plain = cuda.createEvent();
    cuda.recordEvent(plain, stream);
    cuda.synchronizeEvent(plain);
    assert.throws(() => cuda.elapsedMs(start, plain), isCudaError(/invalid resource handle/, 400));
    assert.throws(() => cuda.createEvent({ timing: true, interprocess: true }), RangeError);
    for (const event of [start, end, plain]) cuda.destroyEvent(event);
    cuda.destroyStream(stream);
    cuda.free(device);
  });

  test("host memory that is there already can be pinned, once", (cuda) => {
    const buffer = nativeBuffer(64 * KiB), address = addressOf(buffer);
    cuda.hostRegister(address, buffer.length);
    assert.throws(() => cuda.hostRegister(address, buffer.length), isCudaError(/already/, 712));
    const device = cuda.malloc(buffer.length), stream = cuda.createStream();
    fill(buffer, 3);
    cuda.copy(device, address, buffer.length, stream);
    cuda.synchronizeStream(stream);
    const sent = buffer.slice();
    buffer.fill(0);
    cuda.copy(address, device, buffer.length, stream);
    cuda.synchronizeStream(stream);
    assert.ok(same(buffer, sent));
    cuda.hostUnregister(address);
    assert.throws(() => cuda.hostUnregister(address), isCudaError(/registered/, 713));
    cuda.free(device);
    cuda.destroyStream(stream);
  });

  test("another worker uses the same memory once it has set its device", async (cuda) => {
    const device = cuda.malloc(KiB), back = nativeBuffer(KiB), stream = cuda.createStream();
    const url = new URL("./cuda_worker.ts", import.meta.url);
    const worker = new Worker(url, { type: "module" });
    try {
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
      worker.postMessage({ api: under.api, from: under.from, device, byteLength: KiB, byte: 0x77 });
      assert.equal(await promise, "done");
    } finally {
      worker.terminate();
    }
    cuda.copy(addressOf(back), device, KiB, stream);
    cuda.synchronizeStream(stream);
    assert.ok(back.every((byte) => byte === 0x77));
    cuda.free(device);
    cuda.destroyStream(stream);
  });

  test("two processes share memory and an event", async (cuda) => {
    const byteLength = 256 * KiB, stream = cuda.createStream();
    const device = cuda.malloc(byteLength), back = nativeBuffer(byteLength);
    const event = cuda.createEvent({ interprocess: true });
    cuda.memset(device, 0x11, byteLength, stream);
    cuda.recordEvent(event, stream);
    const memory = cuda.ipcMemHandle(device), handle = cuda.ipcEventHandle(event);
    assert.equal(memory.length, 64);
    assert.throws(() => cuda.openIpcMemHandle(memory), isCudaError(/exported itself/, 201));
    assert.throws(() => cuda.openIpcMemHandle(memory.slice(1)), RangeError);
    assert.throws(() => cuda.openIpcMemHandle(new Uint8Array(64)), CudaError);
    cuda.synchronizeEvent(event);
    const answer = await peer(under, {
      ...{ api: under.api, from: under.from, byteLength, byte: 0x22 },
      ...{ memory: memory.toHex(), event: handle.toHex() },
    });
    assert.deepEqual(answer, { seen: [0x11] });
    cuda.copy(addressOf(back), device, byteLength, stream);
    cuda.synchronizeStream(stream);
    assert.ok(back.every((byte) => byte === 0x22), "what the other process wrote");
    cuda.destroyEvent(event);
    cuda.destroyStream(stream);
    cuda.free(device);
  });

  test("devices reach each other where they say so", (cuda) => {
    if (cuda.deviceCount() < 2) return;
    if (!cuda.canAccessPeer(0, 1)) return;
    cuda.enablePeerAccess(1);
    cuda.enablePeerAccess(1);
    const here = cuda.malloc(KiB), back = nativeBuffer(KiB);
    cuda.setDevice(1);
    const there = cuda.malloc(KiB), stream = cuda.createStream();
    cuda.memset(there, 0x33, KiB, stream);
    cuda.copy(here, there, KiB, stream);
    cuda.copy(addressOf(back), here, KiB, stream);
    cuda.synchronizeStream(stream);
    assert.ok(back.every((byte) => byte === 0x33));
    cuda.destroyStream(stream);
    cuda.free(there);
    cuda.setDevice(0);
    cuda.free(here);
  });

  test("handles of nothing are refused with the library's own words", (cuda) => {
    assert.throws(() => cuda.ipcMemHandle(1n), CudaError);
    assert.throws(() => cuda.closeIpcMemHandle(0x1000n), CudaError);
    assert.throws(() => cuda.hostFree(0x1000n), CudaError);
  });
}

/** A predicate for `assert.throws`. */
function isCudaError(text: RegExp, code: number) {
  return (error: unknown) => {
    assert.ok(error instanceof CudaError, String(error));
    assert.match(error.message, text);
    assert.equal(error.code, code);
    assert.match(error.codeName, /^cuda|^CUDA_/);
    return true;
  };
}

function fill(bytes: Uint8Array, seed: number): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = i * 31 + seed * 7 + (i >> 8);
}

/** `assert.deepEqual` takes a second a megabyte. */
function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

async function until(done: () => boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!done()) {
    assert.ok(performance.now() < deadline, `not done after ${PATIENCE_MS} ms`);
    await setImmediate();
  }
}

async function peer(under: CudaUnderTest, order: PeerOrder): Promise<PeerAnswer> {
  const script = decodeURIComponent(new URL("./cuda_peer.ts", import.meta.url).pathname);
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, JSON.stringify(order)],
    env: { ...under.environment },
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}
