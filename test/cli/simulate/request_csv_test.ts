import assert from "node:assert/strict";
import { requestCsv, requestCsvHeader } from "../../../src/cli/simulate/request_csv.ts";
import type { RequestRow } from "../../../src/sim/experiment/request_recorder.ts";

const row: RequestRow = {
  arrivalMs: 1_234.5678,
  priority: "high",
  outputTokens: 7,
  ttftMs: 12.34567,
  e2eMs: 100,
  preemptionLossMs: 0,
  hasFailed: false,
};

Deno.test("a line for each request, with as many fields as the header", () => {
  const run = { config: 'a "b", c', workload: "w", seed: 3 };
  const failed = { ...row, ttftMs: null, e2eMs: null, hasFailed: true };
  const text = [...requestCsv(run, [row, failed])].join("");
  assert.equal(
    text,
    '"a ""b"", c",w,3,0,1.235,high,7,12.346,100,0,0\n' +
      '"a ""b"", c",w,3,1,1.235,high,7,,,0,1\n',
  );
  assert.equal(requestCsvHeader.split(",").length, 11);
});

Deno.test("many requests come in pieces, and none is lost", () => {
  const run = { config: "c", workload: "w", seed: 1 };
  const pieces = [...requestCsv(run, Array.from({ length: 10_000 }, () => row))];
  assert.equal(pieces.length, 3);
  const lines = pieces.join("").trimEnd().split("\n");
  assert.equal(lines.length, 10_000);
  assert.match(lines[9_999], /^c,w,1,9999,/);
});
