import assert from "node:assert/strict";
import { joinPrompt, splitPrompt } from "../../../src/core/protocol/prompt_payload.ts";
import { generateRequest } from "../../instance/support.ts";

const requestOf = (promptTokenIds: readonly number[]) => ({
  ...generateRequest("a", 1),
  promptTokenIds,
});
const ids = (count: number, last: number) =>
  Array.from({ length: count }, (_, i) => i < count - 1 ? i * 7919 % 50_000 : last);

Deno.test("prompt payload: a long prompt travels as bytes, and is the same behind", () => {
  const request = requestOf(ids(5_000, 2 ** 32 - 1));
  const { data, payload } = splitPrompt(request);
  assert.deepEqual(data, { ...request, promptTokenIds: [] });
  assert.equal(payload?.length, 20_000);
  assert.deepEqual(joinPrompt(data, payload), request);
  const unaligned = new Uint8Array(20_003).subarray(3);
  unaligned.set(payload!);
  assert.deepEqual(joinPrompt(data, unaligned), request);
});

Deno.test("prompt payload: short prompts, and ids of more than 32 bits, stay as they are", () => {
  for (const request of [requestOf(ids(100, 1)), requestOf(ids(5_000, 2 ** 32))]) {
    assert.deepEqual(splitPrompt(request), { data: request });
    assert.equal(joinPrompt(request), request);
  }
});

Deno.test("prompt payload: what is no list of ids is refused", () => {
  const empty = requestOf([]);
  assert.throws(() => joinPrompt(empty, new Uint8Array(5)), /5 bytes: expected token ids of 4/);
  assert.throws(
    () => joinPrompt(requestOf([1]), new Uint8Array(4)),
    /expected none beside a payload/,
  );
});

Deno.test("prompt payload: a prompt that is bytes already travels as they are, and can be sent again", () => {
  for (const count of [100, 5_000]) {
    const promptTokenIds = ids(count, 2 ** 32 - 1);
    const typed = new Uint32Array([7, ...promptTokenIds]).subarray(1);
    for (let attempt = 0; attempt < 2; attempt++) {
      const { data, payload, isPayloadGiven } = splitPrompt({
        ...requestOf([]),
        promptTokenIds: typed,
      });
      assert.notEqual(isPayloadGiven, true, "the request keeps its buffer");
      assert.deepEqual(
        joinPrompt(JSON.parse(JSON.stringify(data)), payload),
        JSON.parse(JSON.stringify(requestOf(promptTokenIds))),
      );
    }
  }
});
