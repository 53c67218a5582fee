import assert from "node:assert/strict";
import { fitRequests } from "../../../src/sim/profile/fit.ts";
import { readRequestSamples } from "../../../src/sim/profile/request_samples.ts";

const header = "request,due_s,end_s,ttft_ms,prompt_tokens,error";

async function samplesOf(...rows: string[]) {
  const path = await Deno.makeTempFile({ suffix: ".csv" });
  try {
    await Deno.writeTextFile(path, [...rows, ""].join("\n"));
    return readRequestSamples(path);
  } finally {
    await Deno.remove(path);
  }
}

/** One request after the other. */
const rows = (count: number) =>
  Array.from({ length: count }, (_, i) => `${i},${i},${i + 0.9},${27 + 0.1 * 8 * i},${8 * i + 8},`);

Deno.test("requests: what they took beyond their prefill, whatever a stall did to some", async () => {
  const samples = await samplesOf(
    header,
    ...rows(12),
    "12,12,13.5,900,8,",
    "13,14,14.1,,8,HTTP 503: busy, later",
  );
  assert.equal(samples.length, 13);
  const prefill = { msPerToken: 0.1, msPerStep: 20, source: "" };
  const { msPerRequest } = fitRequests(samples, { prefill, alignment: 8 }, "");
  assert.ok(Math.abs(msPerRequest - 6.2) < 1e-9, `${msPerRequest}`);
  const slow = fitRequests(samples, { prefill: { ...prefill, msPerStep: 50 }, alignment: 8 }, "");
  assert.equal(slow.msPerRequest, 0); // never negative
});

Deno.test("requests: a long prompt pays for each of its pieces", () => {
  const prefill = { msPerSquaredToken: 0.01, msPerToken: 1, msPerStep: 20, source: "" };
  const of = (promptTokens: number, ttftMs: number, maxPieceTokens?: number) =>
    fitRequests([{ promptTokens, ttftMs }], { prefill, alignment: 8, maxPieceTokens }, "")
      .msPerRequest;
  // Pieces of 40, 40 and 20 tokens, which is padded to 24: 100 + 104 + 60.
  assert.equal(of(100, 268, 40), 4);
  assert.equal(of(80, 188, 40), 4); // 64 + 80 + 40
  assert.equal(of(100, 228), 4); // 100 + 104 + 20
});

Deno.test("requests: files that cannot be used are refused, and say how to make one", async () => {
  const cases: [rows: string[], message: RegExp][] = [
    [
      ["timestamp,instance_id"],
      /lacks the columns due_s, end_s, .*llumnix bench --max-concurrency/,
    ],
    [[header, ...rows(9)], /has 9 requests that did not fail, too few: expected 10 or more/],
    [[header, ...rows(9), "9,9,x,30,8,"], /wrong in row 11: expected numbers for due_s/],
    [
      [header, "0,0,2,30,8,", "1,1.5,3,30,8,"],
      /ran at the same time \(row 3\).*--max-concurrency 1/,
    ],
  ];
  for (const [rows, message] of cases) {
    await assert.rejects(samplesOf(...rows), { name: "UsageError", message });
  }
});
