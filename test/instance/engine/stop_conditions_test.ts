import assert from "node:assert/strict";
import type { Finish, SamplingParams } from "../../../src/core/protocol/generate.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import { finishOf } from "../../../src/instance/engine/stop_conditions.ts";
import { generateRequest } from "../support.ts";

const EOS = 2;
const STOP = 50;

const cases: [what: string, Partial<SamplingParams>, outputs: number[], Finish | null][] = [
  ["nothing yet", {}, [], null],
  ["goes on", {}, [7], null],
  ["end of sequence", {}, [7, EOS], { reason: "stop" }],
  ["end of sequence, ignored", { ignoreEos: true }, [7, EOS], null],
  ["end of sequence, too early", { minTokens: 3 }, [7, EOS], null],
  ["end of sequence, just late enough", { minTokens: 2 }, [7, EOS], { reason: "stop" }],
  ["only the last token counts", {}, [EOS, 7], null],
  ["stop token", {}, [STOP], { reason: "stop", stopTokenId: STOP }],
  ["stop token, too early", { minTokens: 2 }, [STOP], null],
  ["an ignored end that is a stop token too", { ignoreEos: true, stopTokenIds: [EOS] }, [EOS], {
    reason: "stop",
    stopTokenId: EOS,
  }],
  ["most tokens", { maxTokens: 3 }, [7, 8, 9], { reason: "length" }],
  ["an end with the last token", { maxTokens: 2 }, [7, EOS], { reason: "stop" }],
  ["most tokens below the fewest", { maxTokens: 1, minTokens: 5 }, [7], { reason: "length" }],
  ["the model's limit", {}, [1, 1, 1, 1, 1, 1], { reason: "length" }],
  ["one below the model's limit", {}, [1, 1, 1, 1, 1], null],
];

for (const [what, params, outputTokenIds, expected] of cases) {
  Deno.test(`finishOf: ${what}`, () => {
    const all = { eosTokenIds: [EOS, 3], stopTokenIds: [STOP], ...params };
    const sequence = new Sequence(generateRequest("r", 4, all, { outputTokenIds }), 0);
    assert.deepEqual(finishOf(sequence, 10), expected);
  });
}
