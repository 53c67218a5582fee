import assert from "node:assert/strict";
import { decide } from "../../../src/cli/decide/decide.ts";
import { examples, recordsHelp } from "../../../src/cli/decide/help.ts";
import { optionFields } from "../../../src/cli/decide/options.ts";
import { decisionKinds, kindFields } from "../../../src/cli/decide/records.ts";
import * as library from "../../../mod.ts";

const instance = (instance_id: string, more: Record<string, unknown> = {}) => ({
  instance_id,
  total_blocks: 100,
  ...more,
});

for (const kind of decisionKinds) {
  Deno.test(`decide: the example of ${kind} works, and help shows it`, () => {
    const { input, answer } = examples[kind];
    assert.equal(JSON.stringify(decide(kind, JSON.parse(input))), answer);
    const help = recordsHelp(80);
    assert.ok(help.includes(`\n    ${input}\n`));
    assert.ok(help.includes(`\n    ${answer}`));
    for (const name of Object.keys({ ...kindFields[kind], ...optionFields(kind) })) {
      assert.match(help, new RegExp(`^  ${name} `, "m"));
    }
  });
}

Deno.test("decide: is what the library exports", () => {
  assert.equal(library.decide, decide);
});

Deno.test("load: each metric, with what goes in and out of it", () => {
  const instances = [
    instance("a", {
      used_blocks: 40,
      watermark_blocks: 1,
      running_requests: 4,
      running_high_priority_requests: 1,
      waiting_requests: 2,
      first_waiting_blocks: 4,
      all_waiting_blocks: 5,
    }),
    instance("b", { draining: true }),
  ];
  const [steps] = decide("load", { instances }).loads;
  assert.deepEqual([steps.dispatch, steps.migration, steps.migration_defrag], [-9, -14.75, -11]);
  const [ratio] = decide("load", { instances, load_metric: "usage_ratio" }).loads;
  assert.deepEqual([ratio.dispatch, ratio.migration], [0.45, 0.44]);
  const usage = { load_metric: "virtual_usage", priority_headroom_blocks: 16 };
  const [virtual, draining] = decide("load", { instances, ...usage }).loads;
  assert.deepEqual([virtual.virtual_usage_blocks, virtual.freeness], [60, 10]);
  assert.deepEqual([virtual.dispatch, virtual.migration], [-10, -10]);
  assert.deepEqual(draining, {
    instance_id: "b",
    dispatch: "inf",
    migration: "inf",
    migration_defrag: "inf",
    virtual_usage_blocks: "inf",
    freeness: "-inf",
  });
});

Deno.test("load: free and used blocks follow from each other, or are both given", () => {
  const ratio = (blocks: Record<string, number>) =>
    decide("load", { load_metric: "usage_ratio", instances: [instance("a", blocks)] }).loads[0]
      .dispatch;
  assert.equal(ratio({}), 0);
  assert.equal(ratio({ free_blocks: 25 }), 0.75);
  assert.equal(ratio({ used_blocks: 25 }), 0.25);
  assert.equal(ratio({ used_blocks: 25, free_blocks: 70 }), 0.25);
});

Deno.test("load: a full report of an instance is taken as it is", () => {
  const report = {
    instance_type: "both",
    timestamp_ms: 12,
    step_id: 3,
    first_waiting_ms: 0,
    last_step_kind: "decode",
    last_step_batched_tokens: 4,
    last_step_latency_ms: 9.5,
    running_requests: 2,
    running_sequence_lengths: [1, 2],
    finished_request_ids: ["x"],
    received_request_ids: [],
  };
  assert.equal(decide("load", { instances: [instance("a", report)] }).loads[0].dispatch, -50);
});

Deno.test("dispatch: each policy", () => {
  const instances = [
    instance("c", { dispatched_requests: 1, waiting_requests: 1 }),
    instance("a", { dispatched_requests: 3, running_requests: 9, used_blocks: 10 }),
    instance("b", { dispatched_requests: 2, running_requests: 3, used_blocks: 10 }),
  ];
  const choose = (record: Record<string, unknown>) =>
    decide("dispatch", { instances, ...record }).instance_id;
  assert.equal(choose({ dispatch_policy: "balanced" }), "c");
  assert.equal(choose({ dispatch_policy: "load" }), "c");
  assert.equal(choose({ dispatch_policy: "load", load_metric: "usage_ratio" }), "c");
  assert.equal(choose({ dispatch_policy: "rr" }), "a");
  assert.equal(choose({ dispatch_policy: "rr", last_instance_id: "a" }), "b");
  assert.equal(choose({ dispatch_policy: "rr", last_instance_id: "c" }), "a");
  const queue = (seed: number) => choose({ dispatch_policy: "queue", seed });
  const drawn = new Set(Array.from({ length: 20 }, (_, seed) => queue(seed)));
  assert.deepEqual([...drawn].sort(), ["a", "b"]);
  assert.equal(queue(5), queue(5));
  assert.equal(choose({ num_dispatch_instances: 1 }), "c", "the first of the list");
});

Deno.test("dispatch: nobody to choose", () => {
  assert.deepEqual(decide("dispatch", { instances: [] }), { instance_id: null });
  const instances = [instance("a", { draining: true })];
  assert.deepEqual(decide("dispatch", { instances }), { instance_id: null });
});

Deno.test("pair: flags of instances and of the cluster", () => {
  const overloaded = { used_blocks: 96, running_requests: 4, last_running_blocks: 20 };
  const pairs = (...instances: unknown[]) => decide("pair", { instances }).pairs;
  const expected = [{ source: "a", destination: "b" }];
  assert.deepEqual(pairs(instance("a", overloaded), instance("b")), expected);
  assert.deepEqual(pairs(instance("a", overloaded), instance("b", { migrating: true })), []);
  assert.deepEqual(pairs(instance("a", overloaded), instance("b", { backend_ready: false })), []);
  const instances = [
    instance("a", { instance_type: "prefill" }),
    instance("b", { instance_type: "decode" }),
  ];
  assert.deepEqual(decide("pair", { instances, enable_pd_disagg: true }).pairs, expected);
});

Deno.test("request: all of the fields", () => {
  const running = [
    { request_id: "a", length_tokens: 5, priority: "high" },
    { request_id: "b", length_tokens: 9, arrival_ms: 2 },
    { request_id: "c", length_tokens: 7, arrival_ms: 1 },
    { request_id: "d", length_tokens: 1, decoding: false },
    { request_id: "e", length_tokens: 1, migrating: true },
  ];
  const waiting = [{ request_id: "w", migrating: true }, { request_id: "x" }];
  const choose = (policy: string) =>
    decide("request", { running, waiting, request_migration_policy: policy }).request_ids.join(" ");
  assert.deepEqual(["LCR", "SR", "LR", "FCW", "FCWSR"].map(choose), ["b", "c", "b", "x", "x c"]);
  const done = { request_id: "f", length_tokens: 1, expected_steps_reached: true };
  const answer = decide("request", { running: [...running, done] });
  assert.deepEqual(answer, { request_ids: ["f"], must_leave: true });
});

Deno.test("dispatch: with what is known of the request", () => {
  const instances = [
    instance("a", { used_blocks: 50, running_requests: 1 }),
    instance("b", { used_blocks: 40, running_requests: 9, running_high_priority_requests: 1 }),
  ];
  const usage = { instances, load_metric: "virtual_usage", priority_headroom_blocks: 10 };
  const choose = (record: Record<string, unknown>) =>
    decide("dispatch", { ...usage, ...record }).instance_id;
  assert.equal(choose({}), "a");
  assert.equal(choose({ request_blocks: 20 }), "a");
  assert.equal(choose({ request_blocks: 48, request_priority: "high" }), "b");
  assert.equal(choose({ request_blocks: 48, load_metric: "usage_ratio" }), "b");
  const [a, b] = instances;
  const high = { request_blocks: 48, request_priority: "high" };
  assert.equal(choose({ ...high, instances: [a, { ...b, prefill_blocks: 1 }] }), "a");
});

Deno.test("pair and request: what the destination has room for", () => {
  const stuck = { used_blocks: 90, running_requests: 2, waiting_requests: 1 };
  const instances = [
    instance("a", {
      ...stuck,
      first_waiting_blocks: 40,
      first_waiting_ms: 9,
      running_sequence_lengths: [35 * 16, 55 * 16],
    }),
    instance("b", { used_blocks: 20, running_requests: 1 }),
    instance("c", { used_blocks: 50, running_requests: 2 }),
  ];
  const options = { enable_defrag: true, pair_migration_policy: "waiting_first" };
  const answer = decide("pair", { instances, ...options });
  const pair = { source: "a", destination: "c", aim: "waiting", room_blocks: 44 };
  assert.deepEqual(answer.pairs, [pair]);
  const [a, ...others] = instances;
  const waiting = [[90, 1], [40, 2]].map(([blocks, ms]) => ({
    request_id: `w${blocks}`,
    blocks,
    arrival_ms: ms,
  }));
  const named = decide("pair", {
    instances: [{ ...a, waiting, waiting_requests: 2 }, ...others],
    ...options,
  });
  assert.deepEqual(named.pairs, [{ ...pair, request_id: "w40" }]);
  const record = {
    request_migration_policy: "FIT",
    running: [
      { request_id: "a", length_tokens: 560, blocks: 35 },
      { request_id: "b", length_tokens: 880, blocks: 55 },
    ],
    waiting: [{ request_id: "w", blocks: 40, arrival_ms: 9 }],
    available_blocks: 10,
  };
  const { aim, room_blocks } = answer.pairs[0];
  assert.deepEqual(decide("request", { ...record, aim, room_blocks }).request_ids, ["w"]);
  const choose = (room: Record<string, unknown>) =>
    decide("request", { ...record, ...room }).request_ids.join(" ");
  assert.equal(choose({}), "w a");
  assert.equal(choose({ room_blocks: 44 }), "w");
  assert.equal(choose({ room_blocks: 44, room_first_arrival_ms: 10 }), "w");
  assert.equal(choose({ room_blocks: 44, room_first_arrival_ms: 9 }), "a");
  assert.equal(choose({ room_blocks: 44, aim: "room" }), "a");
  assert.equal(choose({ room_blocks: 44, room_first_arrival_ms: 9, aim: "waiting" }), "");
  assert.equal(choose({ room_blocks: 30 }), "");
  const aimed = { room_blocks: 44, aim: "waiting" };
  assert.equal(choose({ ...aimed, request_id: "w" }), "w");
  assert.equal(choose({ ...aimed, request_id: "gone" }), "");
});

Deno.test("pair: room by the metric of the record", () => {
  const short = {
    used_blocks: 97,
    running_requests: 4,
    running_sequence_lengths: [80, 90, 95, 99],
  };
  const options = { enable_defrag: true, pair_migration_policy: "waiting_first" };
  const pairs = (metric: string) => {
    const instances = [
      instance("a", short),
      instance("b", { used_blocks: 50, watermark_blocks: 1 }),
    ];
    return decide("pair", { instances, ...options, load_metric: metric }).pairs;
  };
  const pair = { source: "a", destination: "b", aim: "shortest" };
  assert.deepEqual(pairs("virtual_usage"), [{ ...pair, room_blocks: 49 }]);
  assert.deepEqual(pairs("usage_ratio"), [{ ...pair, room_blocks: 34 }]);
});

Deno.test("scale: draining instances are on their way out and do not count", () => {
  const instances = [instance("a"), instance("b", { draining: true })];
  assert.deepEqual(decide("scale", { instances }), { add: 0, remove: 0 });
  assert.deepEqual(decide("scale", { instances, min_instances: 3 }), { add: 2, remove: 0 });
  const both = [instance("a"), instance("b")];
  assert.deepEqual(decide("scale", { instances: both }), { add: 0, remove: 1 });
});

Deno.test("options: the record's over the command line's over defaults", () => {
  const instances = [instance("a", { used_blocks: 50, running_requests: 1 })];
  const given = new Map([["load-metric", "usage_ratio"]]);
  const load = (record: Record<string, unknown>) =>
    decide("load", { instances, ...record }, given).loads[0].dispatch;
  assert.equal(load({}), 0.5);
  assert.equal(load({ load_metric: "remaining_steps" }), -50);
});

Deno.test("options: unset thresholds are those of the record's metric", () => {
  const record = {
    load_metric: "usage_ratio",
    instances: [
      instance("a", { used_blocks: 90, running_requests: 4, last_running_blocks: 20 }),
      instance("b"),
    ],
  };
  assert.deepEqual(decide("pair", record).pairs, [{ source: "a", destination: "b" }]);
  assert.deepEqual(decide("pair", { ...record, migrate_out_threshold: 0.95 }).pairs, []);
});

Deno.test("bad records are refused by name and place", () => {
  const refuse = (kind: library.DecisionKind, record: unknown, message: string | RegExp) =>
    assert.throws(() => decide(kind, record), { name: "UsageError", message });
  const two = [instance("a"), instance("a")];
  refuse("load", { instances: two }, "instances[1].instance_id: a is there twice");
  refuse("load", { instances: [instance("a", { total_blocks: 0 })] }, /total_blocks: 0 is not/);
  refuse(
    "load",
    { instances: [instance("a", { used_blocks: 101 })] },
    /^a: 101 used and -1 free blocks are not .* expected both 0 or more, and together 100 at most/,
  );
  refuse(
    "load",
    { instances: [instance("a", { used_blocks: 40, free_blocks: 70 })] },
    /^a: 40 used and 70 free blocks are not what total_blocks 100 can be/,
  );
  const three = ["r", "s", "r"].map((request_id) => ({ request_id, length_tokens: 1 }));
  refuse("request", { running: three }, "running[2].request_id: r is there twice");
  refuse(
    "request",
    { running: three.slice(1), waiting: [{ request_id: "s" }] },
    "waiting[0].request_id: s is there twice",
  );
  refuse(
    "load",
    { instances: [instance("a", { numbers: 1 })] },
    "instances[0]: unknown field numbers (llumnix decide --help lists the fields)",
  );
  refuse(
    "load",
    { instances: [instance("a", { running_high_priority_requests: 1 })] },
    "a: running_high_priority_requests are more than running_requests",
  );
  const queued = ["r", "s"].map((request_id) => ({ request_id, blocks: 1 }));
  refuse(
    "pair",
    { instances: [instance("a", { waiting: queued, waiting_requests: 1 })] },
    "a: waiting lists 2 requests, more than waiting_requests 1",
  );
  refuse(
    "pair",
    { instances: [instance("a", { waiting: [...queued, queued[0]], waiting_requests: 3 })] },
    "instances[0].waiting[2].request_id: r is there twice",
  );
  const ofArrivals = (...arrivals: number[]) =>
    instance("a", {
      waiting: arrivals.map((arrival_ms, i) => ({ request_id: `${i}`, blocks: 1, arrival_ms })),
      waiting_requests: arrivals.length,
    });
  refuse(
    "pair",
    { instances: [ofArrivals(5, 9, 2, 4, 3)] },
    "instances[0].waiting[4].arrival_ms: 3 is out of order: requests of high priority come first, " +
      "then the others, both by arrival",
  );
  assert.deepEqual(decide("pair", { instances: [ofArrivals(5, 9, 2, 4, 4)] }).pairs, []);
  refuse(
    "load",
    { instances: [instance("a", { running_sequence_lengths: [1, 2], running_requests: 1 })] },
    "a: running_sequence_lengths lists 2 requests, more than running_requests 1",
  );
  refuse("load", { instances: [], load_metrics: 1 }, /unknown field load_metrics; did you mean/);
  refuse("load", { instances: [], dispatch_policy: "rr" }, /^unknown field dispatch_policy \(/);
  refuse(
    "dispatch",
    { instances: [], dispatch_policy: "laod" },
    "dispatch_policy laod: expected one of balanced, load, queue, rr; did you mean load?",
  );
  for (const term of [{ aim: "room" }, { request_id: "r" }, { room_first_arrival_ms: 1 }]) {
    const [name] = Object.keys(term);
    refuse("request", term, `${name} needs room_blocks, which pair answers with the aim`);
  }
  const ratio = { instances: [], load_metric: "usage_ratio" };
  refuse("scale", { ...ratio, scale_up_threshold: 10 }, /^scale_up_threshold 10: with load metric/);
  refuse("pair", { instances: [], migrate_out_threshold: 0 }, /^migrate_out_threshold 0: with/);
  refuse(
    "scale",
    { instances: [], min_instances: 3, max_instances: 2 },
    "min_instances 3 is more than max_instances 2",
  );
  refuse(
    "scale",
    { instances: [], scale_up_threshold: 60, scale_down_threshold: 10 },
    /^--scale-up-threshold 60 and --scale-down-threshold 10 contradict each other/,
  );
});
