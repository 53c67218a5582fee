import assert from "node:assert/strict";
import type { StepOutput } from "../../../src/executor/executor.ts";
import { PendingOutputs } from "../../../src/instance/engine/pending_outputs.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import { generateRequest } from "../support.ts";

const result: StepOutput = {
  stepId: 1,
  tokenIds: Int32Array.of(0, 0),
  latencyMs: 3,
  logprobs: [null, { tokenId: 7, logprob: -1, rank: 1, top: [] }],
  promptLogprobs: [null, [null]],
} as unknown as StepOutput;

Deno.test("pending outputs: a token has all that its row says, a prompt's log probabilities once", () => {
  const outputs = new PendingOutputs();
  const more = { frontendId: "x", timestamps: true, epoch: 5 };
  const sequence = new Sequence(generateRequest("a", 3, {}, more), 0);
  sequence.startedMs = 4;
  for (const tokenId of [7, 8]) {
    sequence.append(tokenId);
    const finish = tokenId === 8 ? { reason: "stop" } as const : null;
    outputs.pushToken(sequence, result, 1, 10, finish);
  }
  const common = {
    requestId: "a",
    epoch: 5,
    logprobs: [result.logprobs![1]],
    timing: { stepMs: 3, steppedMs: 10 },
  };
  assert.deepEqual(outputs.take(), [{
    frontendId: "x",
    outputs: [
      { ...common, index: 0, tokenIds: [7], prefillMs: 6, promptLogprobs: [null] },
      { ...common, index: 1, tokenIds: [8], finish: { reason: "stop" } },
    ],
  }]);
});

Deno.test("pending outputs: are in their order for each API server, and taken once", () => {
  const outputs = new PendingOutputs();
  const of = (id: string, frontendId: string) =>
    new Sequence(generateRequest(id, 3, {}, { frontendId }), 0);
  const [a, b, c] = [of("a", "x"), of("b", "y"), of("c", "x")];
  a.append(1);
  outputs.pushToken(a, result, 0, 0, null);
  outputs.pushWord(b);
  outputs.pushWord(c, { reason: "abort" });
  outputs.pushWord(a, { reason: "length" });
  assert.equal(outputs.isEmpty, false);
  assert.deepEqual(outputs.take(), [
    {
      frontendId: "x",
      outputs: [
        { requestId: "a", index: 0, tokenIds: [1], prefillMs: 0 },
        { requestId: "c", index: 0, tokenIds: [], finish: { reason: "abort" } },
        { requestId: "a", index: 1, tokenIds: [], finish: { reason: "length" } },
      ],
    },
    { frontendId: "y", outputs: [{ requestId: "b", index: 0, tokenIds: [] }] },
  ]);
  assert.equal(outputs.isEmpty, true);
  assert.deepEqual(outputs.take(), []);
});
