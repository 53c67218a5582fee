import assert from "node:assert/strict";
import type { RequestMigrationPolicy } from "../../../../src/core/protocol/migration.ts";
import { Random } from "../../../../src/core/random.ts";
import type {
  RequestQueues,
  RunningRequest,
  WaitingRequest,
} from "../../../../src/instance/llumlet/request_choice/policy.ts";
import { chooseRequests } from "../../../../src/instance/llumlet/request_choice/request_choice.ts";

function running(requestId: string, overrides: Partial<RunningRequest> = {}): RunningRequest {
  return {
    requestId,
    priority: "normal",
    arrivalMs: 0,
    lengthTokens: 10,
    blocks: 1,
    isDecoding: true,
    hasReachedExpectedSteps: false,
    isMigrating: false,
    ...overrides,
  };
}

function waiting(requestId: string, overrides: Partial<WaitingRequest> = {}): WaitingRequest {
  return { requestId, wasTried: true, arrivalMs: 0, blocks: 1, isMigrating: false, ...overrides };
}

function randomQueues(random: Random): RequestQueues {
  const chance = (n: number) => random.below(n) === 0;
  return {
    availableBlocks: 0,
    running: Array.from({ length: random.below(6) }, (_, i) =>
      running(`r${i}`, {
        priority: chance(3) ? "high" : "normal",
        arrivalMs: random.below(4),
        lengthTokens: 1 + random.below(4),
        isDecoding: !chance(4),
        hasReachedExpectedSteps: chance(12),
        isMigrating: chance(5),
      })),
    waiting: Array.from(
      { length: random.below(4) },
      (_, i) => waiting(`w${i}`, { wasTried: !chance(3), isMigrating: chance(5) }),
    ),
  };
}

/** The page's table, by sorting. */
function pageChoice(queues: RequestQueues, policy: RequestMigrationPolicy): string[] {
  const free = queues.running.filter((r) => !r.isMigrating && r.isDecoding);
  const done = free.filter((r) => r.hasReachedExpectedSteps);
  if (done.length > 0) return done.map((r) => r.requestId);
  const head = queues.waiting.filter((r) => !r.isMigrating).slice(0, 1)
    .filter((r) => r.wasTried).map((r) => r.requestId);
  const hasNormal = free.some((r) => r.priority === "normal");
  const victims = free.filter((r) => !hasNormal || r.priority === "normal");
  const byLength = victims.toSorted((a, b) => a.lengthTokens - b.lengthTokens);
  const one = (request: RunningRequest | undefined) => request ? [request.requestId] : [];
  switch (policy) {
    case "LCR":
      return one(victims.toSorted((a, b) => a.arrivalMs - b.arrivalMs).at(-1));
    case "SR":
      return one(byLength[0]);
    case "LR":
      return one(byLength.find((r) => r.lengthTokens === byLength.at(-1)!.lengthTokens));
    case "FCW":
      return head;
    case "FCWSR":
    case "FIT": // while the destination's room is not known
      return [...head, ...one(byLength[0])];
  }
}

const policies = ["LCR", "SR", "LR", "FCW", "FCWSR", "FIT"] as const;

for (const policy of policies) {
  Deno.test(`request choice: ${policy} is the page's for any queues`, () => {
    const random = new Random(1);
    for (let i = 0; i < 1000; i++) {
      const queues = randomQueues(random);
      const { requestIds } = chooseRequests(queues, policy);
      assert.deepEqual(requestIds, pageChoice(queues, policy), JSON.stringify(queues));
    }
  });
}

Deno.test("request choice: each policy on one example", () => {
  const queues: RequestQueues = {
    availableBlocks: 0,
    running: [
      running("old", { arrivalMs: 1, lengthTokens: 30 }),
      running("long", { arrivalMs: 2, lengthTokens: 90 }),
      running("short", { arrivalMs: 3, lengthTokens: 5 }),
      running("new", { arrivalMs: 4, lengthTokens: 20 }),
      running("prefilling", { arrivalMs: 5, lengthTokens: 1, isDecoding: false }),
    ],
    waiting: [waiting("head"), waiting("next")],
  };
  const chosen = policies.map((policy) => chooseRequests(queues, policy).requestIds.join(" "));
  assert.deepEqual(chosen, ["new", "short", "long", "head", "head short", "head short"]);
});

Deno.test("request choice: requests that reached their expected steps come first, and at once", () => {
  const queues: RequestQueues = {
    availableBlocks: 0,
    running: [
      running("a"),
      running("b", { hasReachedExpectedSteps: true }),
      running("c", { hasReachedExpectedSteps: true, priority: "high" }),
    ],
    waiting: [waiting("w")],
  };
  for (const policy of policies) {
    assert.deepEqual(chooseRequests(queues, policy), { requestIds: ["b", "c"], mustLeave: true });
  }
});

Deno.test("request choice: high priority leaves only where nothing else can", () => {
  const high = running("high", { priority: "high", lengthTokens: 1 });
  const choose = (...running: RunningRequest[]) =>
    chooseRequests({ running, waiting: [], availableBlocks: 0 }, "SR").requestIds;
  assert.deepEqual(choose(high, running("n")), ["n"]);
  assert.deepEqual(choose(high), ["high"]);
});

Deno.test("request choice: nobody is chosen where nobody can leave", () => {
  const queues: RequestQueues = {
    availableBlocks: 0,
    running: [running("a", { isMigrating: true }), running("b", { isDecoding: false })],
    waiting: [waiting("w", { wasTried: false }), waiting("x")],
  };
  for (const policy of policies) assert.deepEqual(chooseRequests(queues, policy).requestIds, []);
});
