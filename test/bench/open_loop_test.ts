import assert from "node:assert/strict";
import {
  type LoadResult,
  type OpenLoopOptions,
  runOpenLoop,
  type Send,
} from "../../src/bench/open_loop.ts";
import { summarize } from "../../src/bench/summary.ts";
import { sleep } from "../../src/core/clock.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";

interface Planned {
  readonly arrivalMs: number;
  readonly tokens?: number;
  readonly failure?: string;
}

/** Runs a load on a virtual clock against a server that is made for it. */
async function run(
  requests: readonly Planned[],
  makeSend: (clock: VirtualClock) => Send<Planned>,
  options: Omit<OpenLoopOptions, "clock"> = {},
  before: (clock: VirtualClock) => void = () => {},
): Promise<LoadResult> {
  const clock = new VirtualClock(1_000_000);
  let result: LoadResult | null = null;
  before(clock);
  const running = runOpenLoop(requests, makeSend(clock), { clock, ...options })
    .then((value) => result = value);
  await clock.runUntil(() => result !== null);
  return await running;
}

/** Serves one after the other: 100 ms to the first token, 10 ms to each that follows. */
function oneByOne(clock: VirtualClock): Send<Planned> {
  let before = Promise.resolve();
  return ({ tokens = 1, failure }, onTokens) => {
    const mine = before.then(async () => {
      await sleep(clock, 100);
      if (failure) throw new Error(failure);
      onTokens(1);
      for (let i = 1; i < tokens; i++) {
        await sleep(clock, 10);
        onTokens(1);
      }
    });
    before = mine.catch(() => {});
    return mine;
  };
}

Deno.test("requests do not wait for the answers of others, so queueing shows", async () => {
  const requests = [0, 10, 20].map((arrivalMs) => ({ arrivalMs, tokens: 3 }));
  const { latencies, lateMs, outputTokens, durationSeconds } = summarize(
    await run(requests, oneByOne),
    [],
  );
  // Ends at 120, 240 and 360 ms.
  assert.deepEqual([...latencies.ttft.sorted], [100, 210, 320]);
  assert.deepEqual([...latencies.e2el.sorted], [120, 230, 340]);
  assert.deepEqual([...latencies.itl.sorted], [10, 10, 10, 10, 10, 10]);
  assert.deepEqual([...latencies.tpot.sorted], [10, 10, 10]);
  assert.deepEqual([outputTokens, durationSeconds, lateMs.percentile(100)], [9, 0.36, 0]);
});

Deno.test("failures are told and are in no latency", async () => {
  const requests = [{ arrivalMs: 0, failure: "status 503" }, { arrivalMs: 5 }];
  const load = await run(requests, oneByOne);
  assert.deepEqual(load.records.map(({ failure }) => failure), ["status 503", null]);
  const { completed, failed, latencies } = summarize(load, []);
  assert.deepEqual([completed, failed, ...latencies.ttft.sorted], [1, 1, 195]);
});

Deno.test("an answer without tokens is a failure", async () => {
  const { records } = await run([{ arrivalMs: 0 }], () => () => Promise.resolve());
  assert.deepEqual(records.map(({ failure }) => failure), ["the answer had no tokens"]);
});

Deno.test("tokens that arrive together had one gap", async () => {
  const { records: [record] } = await run([{ arrivalMs: 0 }], (clock) => async (_, onTokens) => {
    onTokens(1);
    await sleep(clock, 30);
    onTokens(3);
  });
  assert.deepEqual([record.gapsMs, record.outputTokens], [[30, 0, 0], 4]);
});

Deno.test("the server's counts win over those of the stream", async () => {
  const facts = { promptTokens: 7, outputTokens: 5, text: "abc" };
  const { records: [record] } = await run([{ arrivalMs: 0 }], () => (_, onTokens) => {
    onTokens(2);
    return Promise.resolve(facts);
  });
  assert.deepEqual([record.promptTokens, record.outputTokens, record.text], [7, 5, "abc"]);
});

Deno.test("a client that is late counts from the time that was planned", async () => {
  const clock = new VirtualClock();
  // Its timers fire 50 ms too late.
  const late = {
    nowMs: () => clock.nowMs(),
    soon: (callback: () => void) => clock.soon(callback),
    after: (delayMs: number, callback: () => void) => clock.after(delayMs + 50, callback),
  };
  let result: LoadResult | null = null;
  const send: Send<Planned> = (_, onTokens) => {
    onTokens(1);
    return Promise.resolve();
  };
  runOpenLoop([{ arrivalMs: 20 }], send, { clock: late }).then((value) => result = value);
  await clock.runUntil(() => result !== null);
  const { lateMs, latencies } = summarize(result!, []);
  assert.deepEqual([lateMs.percentile(100), latencies.ttft.percentile(100)], [50, 50]);
});

Deno.test("with limited places latency counts from when a place is free", async () => {
  const requests = [0, 10, 500].map((arrivalMs) => ({ arrivalMs, tokens: 2 }));
  const load = await run(requests, oneByOne, { maxConcurrency: 1 });
  const { latencies, waitedMs } = summarize(load, []);
  assert.deepEqual([...latencies.e2el.sorted], [110, 110, 110]);
  assert.deepEqual([...waitedMs.sorted], [0, 0, 100]);
});

Deno.test("a load that is aborted ends with what was sent", async () => {
  const controller = new AbortController();
  const requests = [0, 10, 500].map((arrivalMs) => ({ arrivalMs }));
  const { records } = await run(
    requests,
    oneByOne,
    { signal: controller.signal },
    (clock) => clock.after(50, () => controller.abort()),
  );
  assert.equal(records.length, 2);
});
