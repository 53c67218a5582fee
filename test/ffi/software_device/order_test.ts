/** Work of streams is as late as the rules allow, and a program that forgets a rule notices. */
import assert from "node:assert/strict";
import { DeviceLostError } from "../../../ffi/cuda/errors.ts";
import { until } from "../../patience.ts";
import { configure, counts, deviceTest, filled } from "./device.ts";

deviceTest("work waits until the host asks for it", "", ({ cuda, host, device }) => {
  const to = device(filled(64, 1)), stream = cuda.createStream();
  const source = host(filled(64, 2)), seen = host(64);
  cuda.copy(to, source.at, 64, stream);
  cuda.copy(seen.at, to, 64, stream);
  assert.deepEqual(counts().work, 2);
  assert.deepEqual(seen.bytes, filled(64, 0));
  cuda.synchronizeStream(stream);
  assert.deepEqual(seen.bytes, filled(64, 2));
  assert.deepEqual(counts().work, 0);
});

/** Writes `value` on one stream and copies it onward on another, with or without the wait between. */
function handOver(
  { cuda, host, device }: Parameters<Parameters<typeof deviceTest>[2]>[0],
  wait: boolean,
): number {
  const first = cuda.createStream(), second = cuda.createStream(), event = cuda.createEvent();
  const from = device(filled(64, 1)), to = device(filled(64, 0));
  const source = host(filled(64, 2)), seen = host(64);
  cuda.copy(from, source.at, 64, first);
  cuda.recordEvent(event, first);
  if (wait) cuda.waitEvent(second, event);
  cuda.copy(to, from, 64, second);
  cuda.copy(seen.at, to, 64, second);
  cuda.synchronizeStream(second);
  cuda.synchronizeStream(first);
  return seen.bytes[0];
}

deviceTest("a missing wait for an event shows in late order", "", (bench) => {
  assert.deepEqual(handOver(bench, true), 2);
  assert.deepEqual(handOver(bench, false), 1);
});

deviceTest(
  "a missing wait shows in random order at some seeds, an existing one never",
  "",
  (bench) => {
    let noticed = 0;
    for (let seed = 1; seed <= 20; seed++) {
      configure(`order=random,seed=${seed}`);
      assert.deepEqual(handOver(bench, true), 2);
      if (handOver(bench, false) !== 2) noticed++;
    }
    assert(noticed > 0 && noticed < 20, `${noticed} of 20`);
  },
);

deviceTest("a missing wait is hidden in eager order", "order=eager", (bench) => {
  assert.deepEqual(handOver(bench, false), 2);
});

deviceTest("the same seed gives the same order", "", (bench) => {
  const outcomes = [1, 2, 1, 2].map((seed) => {
    configure(`order=random,seed=${seed}`);
    return Array.from({ length: 30 }, () => handOver(bench, false)).join("");
  });
  assert.deepEqual(outcomes[0], outcomes[2]);
  assert.deepEqual(outcomes[1], outcomes[3]);
  assert(outcomes[0] !== outcomes[1]);
});

deviceTest(
  "a host buffer that is used again too early shows",
  "",
  ({ cuda, host, device, read }) => {
    const to = device(filled(64, 0)), stream = cuda.createStream(), source = host(filled(64, 5));
    cuda.copy(to, source.at, 64, stream);
    source.bytes.fill(9);
    cuda.synchronizeStream(stream);
    assert.deepEqual(read(to, 64), filled(64, 9));
  },
);

deviceTest("memory freed before its last use ends in error 700, and stays there", "", (bench) => {
  const { cuda, device, host } = bench;
  const from = device(filled(64, 1)), stream = cuda.createStream(), seen = host(64);
  cuda.copy(seen.at, from, 64, stream);
  cuda.free(from);
  const is700 = (error: Error) => error instanceof DeviceLostError && error.code === 700;
  assert.throws(() => cuda.synchronizeStream(stream), is700);
  assert.throws(() => cuda.malloc(64), is700);
  assert.throws(() => cuda.queryStream(stream), is700);
  cuda.setDevice(1);
  cuda.free(cuda.malloc(64));
});

deviceTest("an event's latest record counts, and a wait keeps the one it saw", "", (bench) => {
  const { cuda, host, device } = bench;
  const stream = cuda.createStream(), other = cuda.createStream(), event = cuda.createEvent();
  const from = device(filled(8, 1)), seen = host(8);
  assert(cuda.queryEvent(event), "an event without a record is done");
  cuda.recordEvent(event, stream);
  cuda.waitEvent(other, event);
  cuda.copy(seen.at, from, 8, stream);
  cuda.recordEvent(event, stream);
  cuda.synchronizeStream(other);
  assert.deepEqual(seen.bytes[0], 0);
  assert.deepEqual(cuda.queryEvent(event), false);
  cuda.synchronizeEvent(event);
  assert.deepEqual(seen.bytes[0], 1);
});

deviceTest("queries make progress, but not at the first one", "", ({ cuda, host, device }) => {
  const stream = cuda.createStream(), seen = host(8);
  cuda.copy(seen.at, device(filled(8, 1)), 8, stream);
  assert.deepEqual(cuda.queryStream(stream), false);
  let asked = 1;
  while (!cuda.queryStream(stream)) asked++;
  assert(asked < 10, `${asked} queries`);
});

deviceTest(
  "work that nobody asks for runs in the end",
  "progress=5",
  async ({ cuda, host, device }) => {
    const stream = cuda.createStream(), seen = host(8);
    cuda.copy(seen.at, device(filled(8, 1)), 8, stream);
    await until(() => seen.bytes[0] === 1, "the copy has run", 10);
  },
);

deviceTest(
  "a destroyed stream finishes its work; its handle is refused",
  "",
  ({ cuda, host, device }) => {
    const stream = cuda.createStream(), other = cuda.createStream(), event = cuda.createEvent();
    const seen = host(8);
    cuda.copy(seen.at, device(filled(8, 1)), 8, stream);
    cuda.recordEvent(event, stream);
    cuda.destroyStream(stream);
    assert.throws(() => cuda.queryStream(stream), /invalid resource handle/);
    assert.throws(() => cuda.waitEvent(event, event), /invalid resource handle/);
    cuda.waitEvent(other, event);
    cuda.synchronizeStream(other);
    assert.deepEqual(seen.bytes[0], 1);
    assert.deepEqual(counts().streams, 1);
  },
);
