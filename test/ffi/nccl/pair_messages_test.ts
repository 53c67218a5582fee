/** Messages of a pair are checked before they mean anything. */
import assert from "node:assert/strict";
import { MAX_RUNS, PairMessageError, parseMessage } from "../../../ffi/nccl/pair_messages.ts";

const id = "0f".repeat(128);
const good = [
  { from: "source", kind: "prepare", epoch: 0 },
  { from: "source", kind: "open", epoch: 1, id, leftMs: 10.5 },
  { from: "source", kind: "offer", epoch: 1, number: 3, bytes: [1, 2 ** 40], note: {}, leftMs: -1 },
  { from: "source", kind: "fail", epoch: 1, reason: "x" },
  { from: "source", kind: "aborted", epoch: 1 },
  { from: "source", kind: "close", epoch: 1, leftMs: 5 },
  { from: "destination", kind: "ready", epoch: 1 },
  { from: "destination", kind: "posting", epoch: 1, number: 0 },
  { from: "destination", kind: "done", epoch: 1, number: 0 },
  { from: "destination", kind: "refused", epoch: 1, number: 0, reason: "x" },
  { from: "destination", kind: "fail", epoch: 1, reason: "x" },
];

Deno.test("NCCL pair messages: every kind is taken as it is", () => {
  for (const message of good) assert.deepEqual(parseMessage(message), message);
});

Deno.test("NCCL pair messages: one without a field, or with another type in it, is refused", () => {
  for (const message of good) {
    for (const field of Object.keys(message).filter((field) => field !== "note")) {
      for (const value of [undefined, null, [], {}, -1.5, NaN]) {
        const isAllowed = field === "leftMs" && value === -1.5;
        if (isAllowed) continue;
        const bad = { ...message, [field]: value };
        assert.throws(() => parseMessage(bad), PairMessageError, JSON.stringify(bad));
      }
    }
  }
});

Deno.test("NCCL pair messages: kinds of the other end, names of Object's, ids and lists out of bounds", () => {
  const [prepare, open, offer] = good;
  const bad = [
    ...[null, undefined, "x", 7, []],
    { ...prepare, kind: "ready" },
    { ...prepare, kind: "toString" },
    { ...open, id: id.slice(1) },
    { ...open, id: id.replace("f", "g") },
    { ...open, leftMs: 1e12 },
    { ...offer, bytes: [] },
    { ...offer, bytes: [0] },
    { ...offer, bytes: [1.5] },
    { ...offer, bytes: [2 ** 60] },
    { ...offer, bytes: Array(MAX_RUNS + 1).fill(1) },
  ];
  for (const message of bad) {
    assert.throws(
      () => parseMessage(message),
      PairMessageError,
      JSON.stringify(message)?.slice(0, 80),
    );
  }
});

Deno.test("NCCL pair messages: a long reason is cut", () => {
  const message = { from: "source", kind: "fail", epoch: 0, reason: "x".repeat(5_000) };
  const parsed = parseMessage(message);
  assert.equal("reason" in parsed && parsed.reason.length, 1_000);
});
