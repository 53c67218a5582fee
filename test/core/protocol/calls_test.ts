/** What comes from another process is refused by the name of the field that does not fit. */
import assert from "node:assert/strict";
import { MessageError } from "../../../src/core/errors.ts";
import {
  type CallName,
  calls,
  type NotificationName,
  notifications,
  packers,
} from "../../../src/core/protocol/calls.ts";
import { generateRequest } from "../../instance/support.ts";
import { idleInfo, registrationOf } from "../../manager/support.ts";

const registration = registrationOf("i", "unix:/i.sock");
const request = generateRequest("r", 3);
const output = { requestId: "r", index: 0, tokenIds: [1, 2] };
const logprobs = { tokenId: 1, logprob: -0.5, rank: 1, top: [[1, -0.5], [2, null]] };

function without(data: object, field: string): object {
  return Object.fromEntries(Object.entries(data).filter(([name]) => name !== field));
}

/** Data of a call, and what its refusal says. */
const badCalls: readonly [CallName, unknown, RegExp][] = [
  ["join", null, /^the data: expected object, received null$/],
  ["join", {}, /^field instanceId: expected string, received undefined$/],
  ["join", { instanceId: "" }, /^field instanceId: Too small/],
  ["join", { instanceId: "x".repeat(2_000) }, /^field instanceId: Too big/],
  ["join", { instanceId: "i", startedBy: "me" }, /^field startedBy: Invalid option/],
  ["join", { instanceId: "i", registration: {} }, /^field registration\.model: /],
  ["register", without(registration, "pid"), /^field pid: expected (int|number)/],
  ["register", { ...registration, blockSize: 0 }, /^field blockSize: /],
  ["register", { ...registration, totalBlocks: 0.5 }, /^field totalBlocks: /],
  ["dispatch", { requestId: "r", promptTokens: -1 }, /^field promptTokens: /],
  ["generate", { ...request, promptTokenIds: [1, "2"] }, /^field promptTokenIds: expected a list/],
  ["generate", without(request, "params"), /^field params: /],
  ["migrate_reserve", { migrationId: "m", stage: 0, blocks: null }, /^field blocks: /],
  ["migrate_commit", { migrationId: "m", request: {} }, /^field request\.requestId: /],
  ["migration_group", { secret: "s", generation: 1, members: [{}] }, /^field members\[0\]\.inst/],
  ["cluster_events", { after: -1 }, /^field after: /],
  ["cluster_events", { after: 0.5 }, /^field after: /],
  ["cluster_events", {}, /^field after: /],
  ["admin_migrate", { requestId: "r" }, /^field destinationId: /],
  ["measure_path", { from: "a" }, /^field to: /],
  ["path_send", { address: "" }, /^field address: Too small/],
];

const info = idleInfo("i");
const badNotifications: readonly [NotificationName, unknown, RegExp][] = [
  ["info", {}, /^field instanceId: expected an id$/],
  ["info", [], /^field instanceId: expected an id$/],
  ["info", without(info, "totals"), /^field totals: expected an object$/],
  ["info", { ...info, totals: {} }, /^field totals\.promptTokens: expected a whole number/],
  ["info", { ...info, freeBlocks: -1 }, /^field freeBlocks: /],
  ["info", { ...info, timestampMs: 1e999 }, /^field timestampMs: expected a number$/],
  ["info", { ...info, waiting: Array(65).fill({}) }, /^field waiting: expected at most 64/],
  ["info", { ...info, lastStepKind: "pause" }, /^field lastStepKind: expected prefill/],
  ["info", packers.info({ ...info, freeBlocks: -1 }), /^field freeBlocks: /],
  ["info", packers.info(info).slice(0, -1), /^field totals\.preemptions: /],
  ["outputs", {}, /^field outputs: expected a list of at most \d+ outputs$/],
  ["outputs", { outputs: [output, null] }, /^field outputs\[1\]: expected an output$/],
  ["outputs", { outputs: [{ ...output, index: "0" }] }, /^field outputs\[0\]\.index: /],
  ["outputs", { outputs: [{ ...output, tokenIds: [null] }] }, /^field outputs\[0\]\.tokenIds: /],
  [
    "outputs",
    { outputs: [{ ...output, logprobs: [logprobs] }] },
    /^field outputs\[0\]\.logprobs: /,
  ],
  ["outputs", { outputs: [{ ...output, finish: { reason: "tired" } }] }, /\.finish\.reason: /],
  ["outputs", { outputs: [{ ...output, finish: { reason: "error" } }] }, /\.finish\.error: /],
  ["abort", { requestIds: "r" }, /^field requestIds: expected a list of ids$/],
  ["instances", { version: 1, instances: [{}] }, /^field instances\[0\]\.model: /],
  ["resumed", { requestId: "r" }, /^field reason: /],
  ["resumed", { requestId: "r", reason: "x".repeat(70_000) }, /^field reason: Too big/],
  ["failed", { kind: "sad", message: "" }, /^field kind: Invalid option/],
];

function refusal(check: (data: unknown) => unknown, data: unknown): string {
  try {
    check(data);
  } catch (error) {
    assert.ok(error instanceof MessageError, `${error}`);
    return error.message;
  }
  assert.fail(`${JSON.stringify(data)} fits`);
}

Deno.test("a call that does not fit is refused by the name of its field", () => {
  for (const [method, data, message] of badCalls) {
    assert.match(refusal(calls[method].request, data), message, method);
  }
});

Deno.test("a notification that does not fit is refused by the name of its field", () => {
  for (const [method, data, message] of badNotifications) {
    assert.match(refusal(notifications[method], data), message, method);
  }
});

Deno.test("what fits is passed on as it is, without fields that the protocol does not know", () => {
  assert.deepEqual(calls.generate.request({ ...request, extra: 1 }), request);
  assert.deepEqual(calls.register.request(registration), registration);
  assert.deepEqual(notifications.info(info), info);
  assert.deepEqual(notifications.info(packers.info(info)), info);
  const whole = {
    ...output,
    epoch: 2,
    logprobs: [logprobs, logprobs],
    promptLogprobs: [null, logprobs],
    timing: { stepMs: 1, steppedMs: 2, sentMs: 3 },
    finish: { reason: "stop", stopTokenId: 2 },
  };
  assert.deepEqual(notifications.outputs({ outputs: [whole] }), { outputs: [whole] });
});

Deno.test("a list is bounded before its entries are looked at", () => {
  const requestIds = Array(2 ** 20 + 1).fill("r");
  assert.match(refusal(calls.missing.request, { requestIds }), /^field requestIds: /);
});

Deno.test("a request arrives with everything that restricts its tokens", () => {
  const restrictions = {
    logitBias: [[5, -100]] as [number, number][],
    allowedTokenIds: [5, 7],
    badWords: [[1, 2], [3]],
  };
  const restricted = { ...request, params: { ...request.params, ...restrictions } };
  assert.deepEqual(calls.generate.request(restricted), restricted);
});
