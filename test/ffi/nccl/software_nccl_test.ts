/** The software NCCL is as unkind as the documentation of the real one allows. */
import assert from "node:assert/strict";
import type { Nccl } from "../../../ffi/nccl/nccl.ts";
import { ncclTest } from "./device.ts";
import { ENDLESS_MS, until, watch } from "../../patience.ts";
import { type Libraries, turns } from "./two_ends.ts";

const BYTES = 2 << 20;

/** Two ranks of one communicator in this process, with a stream and a buffer each. */
class Ranks {
  readonly #freed: (() => void)[] = [];
  readonly nccl: Nccl;
  readonly comms: bigint[] = [];
  readonly streams: bigint[] = [];
  readonly buffers: bigint[] = [];

  constructor(readonly libraries: Libraries) {
    const { cuda, faults } = libraries;
    this.nccl = libraries.nccl;
    faults.reset();
    for (let rank = 0; rank < 2; rank++) {
      const stream = cuda.createStream(), buffer = cuda.malloc(2 * BYTES);
      this.streams.push(stream);
      this.buffers.push(buffer);
      this.#freed.push(() => (cuda.destroyStream(stream), cuda.free(buffer)));
    }
  }

  async open(id = this.nccl.uniqueId()): Promise<this> {
    for (let rank = 0; rank < 2; rank++) this.comms.push(this.nccl.initRank(2, id, rank));
    for (let rank = 0; rank < 2; rank++) await this.settled(rank);
    return this;
  }

  bytes(rank: number): Uint8Array {
    const pointer = Deno.UnsafePointer.create(this.buffers[rank])!;
    return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, 2 * BYTES));
  }

  isSettled(rank: number): boolean {
    return this.nccl.asyncState(this.comms[rank]) === "success";
  }

  async settled(rank: number): Promise<void> {
    await until(() => this.isSettled(rank), "the state is 0");
  }

  send(bytes = BYTES, offset = 0): void {
    const address = this.buffers[0] + BigInt(offset);
    this.nccl.send(address, bytes, 1, this.comms[0], this.streams[0]);
  }

  receive(bytes = BYTES, offset = 0): void {
    const address = this.buffers[1] + BigInt(offset);
    this.nccl.receive(address, bytes, 0, this.comms[1], this.streams[1]);
  }

  /** Whether the work of a stream is done: an event recorded now is. */
  event(rank: number): { isDone(): boolean } {
    const { cuda } = this.libraries;
    const event = cuda.createEvent();
    this.#freed.push(() => cuda.destroyEvent(event));
    cuda.recordEvent(event, this.streams[rank]);
    return { isDone: () => cuda.queryEvent(event) };
  }

  async close(): Promise<void> {
    await Promise.all(this.comms.map((comm) => this.nccl.abort(comm)));
    for (const free of this.#freed) free();
    this.libraries.faults.reset();
  }
}

function test(name: string, run: (ranks: Ranks) => Promise<void>): void {
  ncclTest(`software NCCL: ${name}`, async (libraries) => {
    const before = libraries.faults.counts();
    const ranks = new Ranks(libraries);
    await run(ranks);
    await ranks.close();
    const left = () => libraries.faults.counts();
    await until(() => left().threads <= before.threads, "its threads have ended");
    assert.deepEqual({ ...left(), misuses: 0 }, { ...before, misuses: 0 }, "left behind");
  });
}

test("an event recorded while the state is 7 is done at once, without data", async (ranks) => {
  ranks.libraries.faults.set("CONNECT_MS", ENDLESS_MS);
  await ranks.open();
  ranks.bytes(0).fill(7);
  ranks.bytes(1).fill(0);
  ranks.send();
  ranks.receive();
  const early = ranks.event(1);
  await until(early.isDone, "the early event is done");
  assert.equal(ranks.isSettled(1), false);
  assert.equal(ranks.bytes(1)[BYTES - 1], 0);
  ranks.libraries.faults.set("CONNECT_MS", 0);
  await ranks.settled(1);
  await until(ranks.event(1).isDone, "the receive has ended");
  assert.equal(ranks.bytes(1)[BYTES - 1], 7);
});

test("two transfers in another order at one end: swapped, no error", async (ranks) => {
  await ranks.open();
  ranks.bytes(0).fill(1, 0, BYTES);
  ranks.bytes(0).fill(2, BYTES);
  for (const offset of [0, BYTES]) {
    ranks.send(BYTES, offset);
    ranks.receive(BYTES, BYTES - offset);
    await ranks.settled(0);
    await ranks.settled(1);
  }
  await until(ranks.event(1).isDone, "the receives have ended");
  assert.deepEqual([ranks.bytes(1)[0], ranks.bytes(1)[BYTES]], [2, 1]);
});

test("sizes that differ hang, and the state says nothing", async (ranks) => {
  await ranks.open();
  ranks.send(BYTES);
  ranks.receive(2 * BYTES);
  await ranks.settled(0);
  await ranks.settled(1);
  const event = ranks.event(1);
  await turns(20);
  assert.equal(event.isDone(), false);
  assert.ok(ranks.isSettled(0) && ranks.isSettled(1));
});

test("a send without its receive leaves state 7 and an empty stream", async (ranks) => {
  await ranks.open();
  ranks.send();
  await turns(20);
  assert.equal(ranks.isSettled(0), false);
  await until(ranks.event(0).isDone, "the stream is empty");
});

test("a call while the state is 7 is refused, and counted as a misuse", async (ranks) => {
  ranks.libraries.faults.set("INIT_MS", ENDLESS_MS);
  const { misuses } = ranks.libraries.faults.counts();
  const opening = ranks.open();
  assert.throws(() => ranks.send(), /invalid argument.*before the previous one has ended/);
  ranks.libraries.faults.set("INIT_MS", 0);
  await opening;
  assert.equal(ranks.libraries.faults.counts().misuses, misuses + 1);
});

test("a handle that is gone is a misuse", async (ranks) => {
  await ranks.open();
  const { misuses } = ranks.libraries.faults.counts();
  const comm = ranks.comms.pop()!;
  const aborted = ranks.nccl.abort(comm);
  await aborted;
  assert.throws(() => ranks.nccl.asyncState(comm), /invalid argument/);
  assert.equal(ranks.libraries.faults.counts().misuses, misuses + 1);
});

test("the event of an aborted receive is done, without data", async (ranks) => {
  await ranks.open();
  ranks.libraries.faults.set("CUT_AFTER_BYTES", BYTES / 2);
  ranks.bytes(0).fill(7);
  ranks.bytes(1).fill(0);
  ranks.send();
  ranks.receive();
  await ranks.settled(1);
  const event = ranks.event(1);
  await turns(20);
  assert.equal(event.isDone(), false);
  await ranks.nccl.abort(ranks.comms.pop()!);
  await until(event.isDone, "the event is done");
  assert.equal(ranks.bytes(1)[BYTES - 1], 0);
});

test("destroy waits for an operation under way", async (ranks) => {
  await ranks.open();
  ranks.libraries.faults.set("KERNEL_MS", ENDLESS_MS);
  ranks.send();
  ranks.receive();
  await ranks.settled(0);
  await ranks.settled(1);
  const ends = ranks.comms.splice(0).map((comm) => ranks.nccl.destroy(comm));
  const states = ends.map(watch);
  await turns();
  assert.deepEqual(states.map(({ isSettled }) => isSettled), [false, false]);
  ranks.libraries.faults.set("KERNEL_MS", 0);
  await Promise.all(ends);
});

test("an id that nobody uses keeps a thread and a port", async (ranks) => {
  const before = ranks.libraries.faults.counts();
  const id = ranks.nccl.uniqueId();
  const threads = () => ranks.libraries.faults.counts().threads;
  await until(() => threads() > before.threads, "the root's thread runs");
  await turns();
  const now = ranks.libraries.faults.counts();
  assert.deepEqual([now.roots, now.threads], [before.roots + 1, before.threads + 1]);
  assert.ok(now.sockets > before.sockets);
  await ranks.open(id);
  await until(() => ranks.libraries.faults.counts().roots === before.roots, "it is used up");
});

test("an id makes one communicator: a later rank is refused, or waits", async (ranks) => {
  const id = ranks.nccl.uniqueId();
  await ranks.open(id);
  ranks.libraries.faults.set("RETRY_MS", 40);
  const third = ranks.nccl.initRank(2, id, 1);
  const refused = () => {
    try {
      return ranks.nccl.asyncState(third) !== "inProgress";
    } catch (error) {
      return /the root of this id is gone/.test(String(error));
    }
  };
  await until(refused, "it is refused");
  await ranks.nccl.abort(third);
});

test("ranks on one device are refused with the reason", async (ranks) => {
  ranks.libraries.faults.set("DEVICE", 7);
  await assert.rejects(ranks.open(), /invalid usage.*Duplicate GPU detected/);
});

test("a rank sends to itself within a group, and a send without its receive hangs", async (ranks) => {
  const { nccl, streams: [stream], buffers: [buffer], comms } = ranks;
  comms.push(nccl.initRank(1, nccl.uniqueId(), 0));
  await ranks.settled(0);
  ranks.bytes(0).fill(7, 0, BYTES).fill(0, BYTES);
  nccl.groupStart();
  nccl.send(buffer, BYTES, 0, comms[0], stream);
  nccl.receive(buffer + BigInt(BYTES), BYTES, 0, comms[0], stream);
  nccl.groupEnd();
  await ranks.settled(0);
  await until(ranks.event(0).isDone, "the transfer has ended");
  assert.deepEqual(ranks.bytes(0).subarray(BYTES), ranks.bytes(0).subarray(0, BYTES));
  assert.equal(ranks.bytes(0)[2 * BYTES - 1], 7);
  nccl.send(buffer, BYTES, 0, comms[0], stream);
  await ranks.settled(0);
  const lone = ranks.event(0);
  await turns(20);
  assert.equal(lone.isDone(), false);
});
