import assert from "node:assert/strict";
import type { RequestOutput } from "../../src/core/protocol/generate.ts";
import { Random } from "../../src/core/random.ts";
import { OutputOrder } from "../../src/client/output_order.ts";

function output(index: number, tokenIds: number[], rest: Partial<RequestOutput> = {}) {
  return { requestId: "r", index, tokenIds, ...rest };
}

function collect(firstIndex = 0) {
  const received: RequestOutput[] = [];
  const order = new OutputOrder(firstIndex, (output) => received.push(output));
  return { received, order, tokens: () => received.flatMap(({ tokenIds }) => tokenIds) };
}

const stop: Partial<RequestOutput> = { finish: { reason: "stop" } };
const failure: Partial<RequestOutput> = {
  finish: { reason: "error", error: { kind: "internal", message: "lost" } },
};

Deno.test("outputs in order pass through untouched", () => {
  const { order, received } = collect();
  const sent = [output(0, [10]), output(1, [11, 12]), output(3, [], stop)];
  for (const one of sent) order.accept(one);
  assert.ok(sent.every((one, i) => one === received[i]));
  assert.ok(order.hasEnded);
});

Deno.test("a resumed request starts behind the tokens it has", () => {
  const { order, tokens } = collect(5);
  order.accept(output(3, [103, 104, 105]));
  order.accept(output(6, [106]));
  assert.deepEqual(tokens(), [105, 106]);
});

Deno.test("a repeated output is cut where it was delivered, with its log probabilities", () => {
  const { order, received } = collect();
  const logprob = (tokenId: number) => ({ tokenId, logprob: -1, rank: 1, top: [] });
  const promptLogprobs = [null];
  order.accept(output(0, [1], { logprobs: [logprob(1)], promptLogprobs }));
  order.accept(output(0, [1, 2], { logprobs: [logprob(1), logprob(2)], promptLogprobs }));
  assert.deepEqual(received[1], output(1, [2], { logprobs: [logprob(2)] }));
});

Deno.test("whatever arrives in whatever order, each token is delivered once, and one finish", () => {
  for (let seed = 0; seed < 300; seed++) {
    const random = new Random(seed);
    const length = 1 + random.below(40);
    const token = (index: number) => 1000 + index;
    const range = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => token(from + i));
    const outputs: RequestOutput[] = [];
    for (let from = 0; from < length;) {
      const to = Math.min(length, from + 1 + random.below(4));
      outputs.push(output(from, range(from, to), to === length ? stop : {}));
      from = to;
    }
    for (let i = random.below(10); i > 0; i--) {
      const from = random.below(length), to = from + random.below(length - from) + 1;
      outputs.push(output(from, range(from, to), to === length ? stop : {}));
    }
    for (let i = outputs.length - 1; i > 0; i--) {
      const j = random.below(4) === 0 ? random.below(i + 1) : i;
      [outputs[i], outputs[j]] = [outputs[j], outputs[i]];
    }
    const { order, received, tokens } = collect();
    for (const one of outputs) order.accept(one);
    assert.deepEqual(tokens(), range(0, length), `seed ${seed}`);
    assert.deepEqual(received.map((one) => !!one.finish).indexOf(true), received.length - 1);
    let next = 0;
    for (const one of received) {
      assert.equal(one.index, next, `seed ${seed}`);
      next += one.tokenIds.length;
    }
  }
});

Deno.test("an error ends a request at once, even with a gap before it", () => {
  const { order, received } = collect();
  order.accept(output(0, [1]));
  order.accept(output(4, [5]));
  order.accept(output(5, [6], failure));
  order.accept(output(1, [2, 3, 4]));
  assert.equal(received.length, 2);
  assert.equal(received[1].index, 1);
  assert.deepEqual(received[1].tokenIds, []);
  assert.equal(received[1].finish?.reason, "error");
});

Deno.test("a gap that is never filled ends the request instead of memory", () => {
  const { order, received } = collect();
  for (let i = 1; i < 10_000; i++) order.accept(output(i, [i]));
  assert.equal(received.length, 1);
  assert.match(received[0].finish!.error!.message, /from index 0 on did not arrive/);
});

Deno.test("a stopped request delivers nothing more", () => {
  const received: RequestOutput[] = [];
  const order: OutputOrder = new OutputOrder(0, (one) => {
    received.push(one);
    if (one.index === 1) order.stop();
  });
  order.accept(output(1, [2]));
  order.accept(output(2, [3]));
  order.accept(output(0, [1]));
  assert.deepEqual(received.map(({ index }) => index), [0, 1]);
});

Deno.test("an output without tokens, in which an instance takes over, is not delivered", () => {
  const { order, received } = collect();
  for (const one of [output(0, [10]), output(1, [], { epoch: 1 }), output(1, [11], stop)]) {
    order.accept(one);
  }
  assert.deepEqual(received, [output(0, [10]), output(1, [11], stop)]);
});
