import assert from "node:assert/strict";
import type { StepInput, StepOutput } from "../../src/executor/executor.ts";
import { StepMemory } from "../../src/executor/step_memory.ts";

/** Both ends, in one thread: a request that is there already is not waited for. */
function bothEnds() {
  const main = new StepMemory();
  return { main, worker: new StepMemory(main.buffer) };
}

const step: StepInput = {
  stepId: 2 ** 40 + 1,
  kind: "prefill",
  removed: [3, 1],
  added: [],
  swapOut: Int32Array.of(1, 2),
  swapIn: Int32Array.of(),
  handles: Int32Array.of(5, 7),
  tokenIds: Int32Array.of(11, 12, 13),
  queryStarts: Int32Array.of(0, 1, 3),
  contextLens: Int32Array.of(9, 2),
  blockTables: Int32Array.of(0, 1, 2, -1),
  maxBlocks: 2,
};
const output: StepOutput = {
  stepId: step.stepId,
  tokenIds: Int32Array.of(-1, 2 ** 31 - 1),
  latencyMs: 1.5,
};

Deno.test("step memory: a step and its output arrive as they were sent", async () => {
  const { main, worker } = bothEnds();
  const kinds = [["prefill", false], ["prefill", true], ["decode", false]] as const;
  for (const [kind, isPartial] of kinds) {
    assert(main.requestStep({ ...step, kind, isPartial }));
    assert.deepEqual(worker.nextRequest(), {
      call: "step",
      input: { ...step, kind, isPartial },
    });
    assert(worker.answerStep(output));
    assert.deepEqual(await main.answer(), output);
  }
});

Deno.test("step memory: the calls of a pipeline, each answered with the step before", async () => {
  const { main, worker } = bothEnds();
  const decode = {
    ...step,
    kind: "decode",
    isPartial: false,
    tokenIds: Int32Array.of(-1, -2, 5),
  } as const;
  const requests = [
    { call: "start", input: decode },
    { call: "follow", input: { ...decode, stepId: decode.stepId + 1, isAhead: true } },
    { call: "collect", input: null },
  ] as const;
  for (const [i, request] of requests.entries()) {
    assert(main.request(request));
    assert.deepEqual(worker.nextRequest(), request);
    const answer = { ...output, stepId: decode.stepId + i - 1 };
    assert(worker.answerStep(answer));
    assert.deepEqual(await main.answer(), answer);
  }
});

Deno.test("step memory: an output outlives the next step", async () => {
  const { main, worker } = bothEnds();
  const outputs: (StepOutput | null)[] = [];
  for (const tokenIds of [Int32Array.of(1), Int32Array.of(2)]) {
    main.requestStep(step);
    worker.nextRequest();
    worker.answerStep({ ...output, tokenIds });
    outputs.push(await main.answer());
  }
  assert.deepEqual(outputs.map((output) => output?.tokenIds[0]), [1, 2]);
});

Deno.test("step memory: what does not fit is announced as a message", async () => {
  const { main, worker } = bothEnds();
  assert(!main.requestStep({ ...step, blockTables: new Int32Array(1 << 20) }), "too long");
  assert(!main.requestStep({ ...step, added: [{} as StepInput["added"][0]] }), "announces");
  main.requestByMessage();
  assert.equal(worker.nextRequest(), null);

  const large: StepOutput[] = [
    { ...output, tokenIds: new Int32Array(1 << 20) },
    { ...output, logprobs: [null, null] },
    { ...output, promptLogprobs: [null, null] },
  ];
  for (const output of large) {
    assert(main.requestStep(step));
    worker.nextRequest();
    assert(!worker.answerStep(output));
    assert.equal(await main.answer(), null);
  }
});

Deno.test("step memory: an answer that came as a message is not taken for a later one", async () => {
  const { main, worker } = bothEnds();
  main.requestStep(step);
  const first = main.answer();
  worker.nextRequest();
  worker.answerStep({ ...output, logprobs: [null, null] });
  // The message was faster than the wake-up of who waits for the answer.
  main.requestStep(step);
  worker.nextRequest();
  worker.answerStep(output);
  assert.equal(await first, null);
  assert.deepEqual(await main.answer(), output);
});

/** Wakes who waits for a word of the control block, as the late `notify` of a step before does. */
async function wakeInVain({ buffer }: StepMemory, word: number): Promise<void> {
  const control = new Int32Array(buffer, 16);
  while (Atomics.notify(control, word) === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
}

Deno.test("step memory: a worker that is woken in vain takes no step twice", async () => {
  const main = new StepMemory();
  const worker = new Worker(new URL("./_step_memory_worker.ts", import.meta.url), {
    type: "module",
  });
  const taken = new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
  worker.postMessage(main.buffer);
  await wakeInVain(main, 0);
  main.requestStep(step);
  assert.equal(await taken, step.stepId);
  worker.terminate();
});

Deno.test("step memory: an output that is not there yet is not taken", async () => {
  const { main, worker } = bothEnds();
  main.requestStep(step);
  worker.nextRequest();
  const answer = main.answer();
  await wakeInVain(main, 2);
  worker.answerStep(output);
  // Waiting for memory alone does not keep the event loop alive; outside of tests the worker does.
  const alive = setInterval(() => {}, 1000);
  assert.deepEqual(await answer, output);
  clearInterval(alive);
});
