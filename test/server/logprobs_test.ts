import assert from "node:assert/strict";
import type { TextLogprob } from "../../src/frontend/service.ts";
import {
  chatLogprob,
  completionLogprobs,
  echoedTokens,
  logprobsById,
} from "../../src/server/logprobs.ts";

const scored = (token: string, textOffset: number): TextLogprob => ({
  tokenId: 5,
  token,
  bytes: [],
  logprob: -3,
  rank: 4,
  textOffset,
  top: [{ tokenId: 9, token: "top", bytes: [1], logprob: -0.1, textOffset }],
});

Deno.test("the first token of an echoed prompt is what the text has before the second", () => {
  const prompt = [null, scored("b", 2)];
  const handle = { promptText: "👋ab", firstToken: "?" };
  assert.equal(echoedTokens(handle, prompt)[0].token, "👋a");
  assert.equal(echoedTokens({ ...handle, promptText: "only" }, [null])[0].token, "only");
});

Deno.test("a first token that the prompt's text lacks has its own", () => {
  // "<s>" has three characters in the offsets and none in the text.
  const handle = { promptText: "abc", firstToken: "<s>" };
  const tokens = echoedTokens(handle, [null, scored("abc", 3)]);
  assert.deepEqual(tokens.map((it) => [it.token, it.textOffset]), [["<s>", 0], ["abc", 0]]);
  assert.equal(echoedTokens({ ...handle, promptText: "" }, [null])[0].token, "<s>");
});

Deno.test("output offsets follow the prompt; the chosen token is among the top ones", () => {
  const result = completionLogprobs([{ token: "ab", textOffset: 0 }], [scored("x", 1)], 10);
  assert.deepEqual(result, {
    text_offset: [0, 11],
    token_logprobs: [null, -3],
    tokens: ["ab", "x"],
    top_logprobs: [null, { top: -0.1, x: -3 }],
  });
});

Deno.test("of tokens with the same text the likeliest is reported", () => {
  const [top] = completionLogprobs([], [scored("top", 0)], 0).top_logprobs;
  assert.deepEqual(top, { top: -0.1 });
});

Deno.test("impossible tokens have OpenAI's least log probability", () => {
  const impossible = { ...scored("x", 0), logprob: -Infinity };
  assert.equal(chatLogprob(impossible, 0).logprob, -9999);
  assert.deepEqual(logprobsById([null, impossible]), [
    null,
    {
      9: { logprob: -0.1, rank: 1, decoded_token: "top" },
      5: { logprob: -9999, rank: 4, decoded_token: "x" },
    },
  ]);
});
