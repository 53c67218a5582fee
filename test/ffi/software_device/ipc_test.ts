/** Memory and events that processes share, and what is left when one of them dies. */
import assert from "node:assert/strict";
import { addressOf, nativeBuffer } from "../../../ffi/memory.ts";
import { type Bench, counts, deviceTest, filled } from "./device.ts";
import { Peer } from "./peer.ts";

/** A test with a second process, which is killed at its end. */
function peerTest(name: string, run: (bench: Bench, peer: Peer) => Promise<void>): void {
  deviceTest(name, "", async (bench) => {
    const peer = new Peer("memory=64M,progress=0");
    try {
      await run(bench, peer);
    } finally {
      await peer.kill();
    }
  });
}

const nan = [0xff];

peerTest("an exported allocation is the same memory in the other process", async (bench, peer) => {
  const { cuda, device, read } = bench;
  const at = device(filled(4096, 3));
  const handle = [...cuda.ipcMemHandle(at)];
  assert.throws(() => cuda.openIpcMemHandle(Uint8Array.from(handle)), /\b201\b/);
  const there = await peer.call("open", handle);
  assert.deepEqual(await peer.call("values", there), [3]);
  await peer.call("fill", there, 4);
  assert.deepEqual(read(at, 4096), filled(4096, 4));
  assert.equal(await peer.call("open", handle), there, "a second open gives the same address");
  await peer.call("close", there);
  assert.deepEqual(await peer.call("values", there), [4], "one open is left");
  await peer.call("close", there);
  await assert.rejects(peer.call("values", there), /invalid argument/);
  await assert.rejects(peer.call("close", there), /invalid argument/);
});

peerTest("memory that its owner freed reads as NaN, and cannot be opened", async (bench, peer) => {
  const { cuda, device } = bench;
  const at = device(filled(4096, 3));
  const handle = [...cuda.ipcMemHandle(at)];
  const there = await peer.call("open", handle);
  cuda.free(at);
  assert.deepEqual(await peer.call("values", there), nan);
  await peer.call("close", there);
  await assert.rejects(peer.call("open", handle), /invalid resource handle/);
});

peerTest("handles of nothing are refused", async ({ cuda, device }, peer) => {
  const handle = [...cuda.ipcMemHandle(device(filled(4096, 3)))];
  await assert.rejects(peer.call("open", handle.map(() => 0)), /invalid argument/);
  const otherSerial = handle.with(8, handle[8] ^ 1);
  await assert.rejects(peer.call("open", otherSerial), /invalid resource handle/);
  const otherStart = handle.with(16, handle[16] ^ 1);
  await assert.rejects(peer.call("open", otherStart), /invalid resource handle/);
  assert.throws(() => cuda.ipcMemHandle(device(filled(4096, 3)) + 256n), /invalid argument/);
  assert.throws(() => cuda.ipcMemHandle(cuda.hostAlloc(4096)), /invalid argument/);
});

/** Names in /dev/shm and in the list of System V memory: what a dead process could leave. */
function sharedMemory(): string {
  const names = [...Deno.readDirSync("/dev/shm")].map(({ name }) => name).sort();
  return names.join("\n") + Deno.readTextFileSync("/proc/sysvipc/shm");
}

peerTest("a killed owner leaves nothing, and its memory reads as NaN", async (bench, peer) => {
  const { cuda, read } = bench;
  const before = sharedMemory();
  const [, handle] = await peer.call("allocate", 6);
  const [, unopened] = await peer.call("allocate", 6);
  const here = cuda.openIpcMemHandle(Uint8Array.from(handle));
  assert.deepEqual(read(here, 4096), filled(4096, 6));
  assert.equal(counts().opened, 1);
  await peer.kill();
  assert.deepEqual(read(here, 4096), filled(4096, 0xff));
  assert.throws(() => cuda.openIpcMemHandle(Uint8Array.from(unopened)), /invalid resource handle/);
  cuda.closeIpcMemHandle(here);
  assert.equal(sharedMemory(), before);
  assert.equal(counts().opened, 0);
});

peerTest("an event of another process is waited for", async ({ cuda, device }, peer) => {
  const at = device(filled(4096, 1)), stream = cuda.createStream();
  const event = cuda.createEvent({ interprocess: true });
  const there = await peer.call("open", [...cuda.ipcMemHandle(at)]);
  const handle = [...cuda.ipcEventHandle(event)];
  const source = nativeBuffer(4096).fill(2);
  cuda.copy(at, addressOf(source), 4096, stream);
  cuda.recordEvent(event, stream);
  await peer.call("waitThenCopy", handle, there);
  assert.equal(cuda.queryEvent(event), false);
  cuda.synchronizeEvent(event);
  assert.equal(await peer.call("finish"), 2);
});
