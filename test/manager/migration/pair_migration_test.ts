/** The rules of src/manager/README.md, "Pair migration", written a second time and compared. */
import assert from "node:assert/strict";
import type { InstanceInfo, InstanceType } from "../../../src/core/protocol/instance_info.ts";
import { Random } from "../../../src/core/random.ts";
import { loadStateOf } from "../../../src/manager/load/load_state.ts";
import {
  type PairMigrationOptions,
  pairMigrations,
  pairPolicyInForce,
} from "../../../src/manager/migration/pair_migration.ts";
import type { MigrationCandidate } from "../../../src/manager/migration/policy.ts";
import { randomInfos } from "../random_info.ts";
import { idleInfo } from "../support.ts";

const defaults: PairMigrationOptions = {
  loadMetric: "remaining_steps",
  pairMigrationPolicy: "defrag_constrained",
  enableDefrag: false,
  migrateOutThreshold: 3,
  enablePdDisagg: false,
};

type Flags =
  & Partial<
    Pick<MigrationCandidate, "isMigrating" | "isBackendReady" | "hostName" | "isHostDrained">
  >
  & {
    readonly isDraining?: boolean;
  };

function candidateOf(info: InstanceInfo, flags: Flags = {}): MigrationCandidate {
  const { isDraining = false, isMigrating = false, isBackendReady = true } = flags;
  const { hostName = null, isHostDrained = false } = flags;
  return {
    instanceId: info.instanceId,
    instanceType: info.instanceType,
    state: loadStateOf(info, { isDraining }),
    killedRequests: info.killedRequests,
    lastRunningBlocks: info.lastRunningBlocks,
    firstWaitingMs: info.firstWaitingMs,
    waiting: info.waiting,
    runningSequenceLengths: info.runningSequenceLengths,
    blockSize: 16,
    hostName,
    isHostDrained,
    isMigrating,
    isBackendReady,
  };
}

/** Pairs as "a>b". */
function pairs(
  infos: readonly InstanceInfo[],
  options: Partial<PairMigrationOptions> = {},
  flags: Readonly<Record<string, Flags>> = {},
): string[] {
  const candidates = infos.map((info) => candidateOf(info, flags[info.instanceId]));
  return pairMigrations(candidates, { ...defaults, ...options })
    .map(({ source, destination }) => `${source}>${destination}`);
}

/** An instance with as many running requests that have `steps` decode steps left. */
function steps(
  instanceId: string,
  running: number,
  left: number,
  more: Partial<InstanceInfo> = {},
) {
  const freeBlocks = 1 + left * running;
  const totalBlocks = 200;
  return idleInfo(instanceId, {
    totalBlocks,
    freeBlocks,
    usedBlocks: totalBlocks - freeBlocks,
    runningRequests: running,
    lastRunningBlocks: 10,
    ...more,
  });
}

Deno.test("requests of high priority that have an instance to themselves stay", () => {
  const running = { totalBlocks: 851, usedBlocks: 130, freeBlocks: 721, lastRunningBlocks: 65 };
  const a = idleInfo("a", { ...running, runningRequests: 2, runningHighPriorityRequests: 2 });
  const b = idleInfo("b", { totalBlocks: 851, freeBlocks: 851 });
  for (const enableDefrag of [false, true]) {
    const options = { loadMetric: "virtual_usage", enableDefrag } as const;
    assert.deepEqual(pairs([a, b], options), []);
    const withOther = { ...a, runningHighPriorityRequests: 1 };
    assert.deepEqual(pairs([withOther, b], options), ["a>b"], "the other leaves");
    const full = { ...a, usedBlocks: 850, freeBlocks: 1, lastRunningBlocks: 425 };
    assert.deepEqual(pairs([full, b], options), ["a>b"], "blocks are short");
    assert.deepEqual(pairs([a, b], options, { a: { isDraining: true } }), ["a>b"]);
  }
});

// --- the page, word by word -------------------------------------------------------------------

/** Migration load with `remaining_steps` or `usage_ratio`. */
function pageLoad(info: InstanceInfo, options: PairMigrationOptions): number {
  if (options.loadMetric === "usage_ratio") {
    return (info.usedBlocks + info.firstWaitingBlocks) / info.totalBlocks;
  }
  let blocks = info.freeBlocks - info.watermarkBlocks;
  let requests = info.runningRequests;
  if (options.enableDefrag) {
    blocks -= info.firstWaitingBlocks;
    if (info.waitingRequests > 0) requests++;
  }
  return requests === 0 ? -Infinity : -blocks / requests;
}

function pageThreshold({ loadMetric, migrateOutThreshold }: PairMigrationOptions): number {
  return loadMetric === "usage_ratio" ? migrateOutThreshold : -migrateOutThreshold;
}

function pageBalanced(
  source: InstanceInfo,
  destination: InstanceInfo,
  options: PairMigrationOptions,
): boolean {
  const wasIdle = destination.runningRequests === 0 && destination.waitingRequests === 0;
  if (wasIdle || pageLoad(destination, options) === -Infinity) return true;
  const blocks = source.lastRunningBlocks;
  const moves = source.runningRequests > 0 ? 1 : 0;
  const left = {
    ...source,
    runningRequests: source.runningRequests - moves,
    freeBlocks: source.freeBlocks + blocks,
    usedBlocks: source.usedBlocks - blocks,
  };
  const right = {
    ...destination,
    runningRequests: destination.runningRequests + moves,
    freeBlocks: destination.freeBlocks - blocks,
    usedBlocks: destination.usedBlocks + blocks,
  };
  const before = pageLoad(source, options) - pageLoad(destination, options);
  const after = pageLoad(left, options) - pageLoad(right, options);
  return pageLoad(right, options) < pageThreshold(options) && 0 < after && after < before;
}

function pagePairs(infos: readonly InstanceInfo[], options: PairMigrationOptions): string[] {
  const policy = options.enableDefrag ? options.pairMigrationPolicy : "balanced";
  const threshold = pageThreshold(options);
  const load = (info: InstanceInfo) => pageLoad(info, options);
  const overloaded = (info: InstanceInfo) => info.killedRequests > 0 || load(info) > threshold;
  const underloaded = (info: InstanceInfo) => info.killedRequests === 0 && load(info) < threshold;
  const order = (a: number, b: number) => a < b ? -1 : a > b ? 1 : 0;
  const result: string[] = [];
  const taken: string[] = [];
  const round = (sources: InstanceInfo[], destinations: InstanceInfo[], isBalanced: boolean) => {
    const notTaken = (info: InstanceInfo) => !taken.includes(info.instanceId);
    const from = sources.filter(notTaken).sort((a, b) => order(load(b), load(a)));
    const to = destinations.filter(notTaken).sort((a, b) => order(load(a), load(b)));
    while (from.length > 0 && to.length > 0) {
      const source = from.shift()!, destination = to.shift()!;
      if (source.instanceId === destination.instanceId) continue;
      if (!notTaken(source) || !notTaken(destination)) continue;
      if (isBalanced && !pageBalanced(source, destination, options)) continue;
      taken.push(source.instanceId, destination.instanceId);
      result.push(`${source.instanceId}>${destination.instanceId}`);
    }
  };
  const roundByLoad = (members: InstanceInfo[]) => {
    const sources = policy === "defrag_relaxed" ? members : members.filter(overloaded);
    round([...sources], members.filter(underloaded), policy === "balanced");
  };
  if (options.enablePdDisagg) {
    const of = (type: InstanceType) => infos.filter((info) => info.instanceType === type);
    round(of("prefill"), of("decode").filter((info) => info.killedRequests === 0), false);
    roundByLoad(of("decode"));
  } else {
    roundByLoad([...infos]);
  }
  return result;
}

// ----------------------------------------------------------------------------------------------

Deno.test("pairs: every rule of the page holds for any cluster", () => {
  const random = new Random(1);
  let kept = 0;
  for (let i = 0; i < 3000; i++) {
    const loadMetric = (["remaining_steps", "usage_ratio"] as const)[random.below(2)];
    const options: PairMigrationOptions = {
      loadMetric,
      pairMigrationPolicy:
        (["balanced", "defrag_constrained", "defrag_relaxed"] as const)[random.below(3)],
      enableDefrag: random.below(3) > 0,
      migrateOutThreshold: loadMetric === "usage_ratio"
        ? [0.3, 0.5, 0.85][random.below(3)]
        : [1, 3, 6][random.below(3)],
      enablePdDisagg: random.below(3) === 0,
    };
    const infos = randomInfos(random, random.below(9)).map((info) => ({
      ...info,
      instanceType: options.enablePdDisagg
        ? (["prefill", "decode"] as const)[random.below(2)]
        : "both" as const,
    }));
    const expected = pagePairs(infos, options);
    assert.deepEqual(pairs(infos, options), expected, JSON.stringify({ options, infos }));
    kept += expected.length;
  }
  assert.ok(kept > 1000, `the cases are worth their time: ${kept} pairs`);
});

Deno.test("pairs: nobody is in two, whatever the load metric and the flags", () => {
  const random = new Random(2);
  for (let i = 0; i < 1000; i++) {
    const infos = randomInfos(random, random.below(9));
    const flags: Record<string, Flags> = {};
    for (const { instanceId } of infos) {
      flags[instanceId] = {
        isMigrating: random.below(4) === 0,
        isBackendReady: random.below(4) > 0,
        isDraining: random.below(5) === 0,
      };
    }
    const found = pairs(infos, {
      loadMetric: "virtual_usage",
      pairMigrationPolicy: "defrag_relaxed",
      enableDefrag: random.below(2) === 0,
    }, flags);
    const names = found.flatMap((pair) => pair.split(">"));
    assert.equal(new Set(names).size, names.length);
    for (const name of names) {
      assert.ok(!flags[name].isMigrating && flags[name].isBackendReady, `${name} in ${found}`);
    }
    for (const pair of found) assert.ok(!flags[pair.split(">")[1]].isDraining, pair);
  }
});

Deno.test("pairs: preempted requests make a source, and no destination, at any load", () => {
  const killed = steps("a", 2, 50, { killedRequests: 1, waitingRequests: 1 });
  assert.deepEqual(pairs([killed, idleInfo("b")]), ["a>b"]);
  assert.deepEqual(pairs([steps("c", 4, 1), killed]), []);
});

Deno.test("pairs: a load at the threshold is neither over nor under it", () => {
  assert.deepEqual(pairs([steps("a", 4, 3), idleInfo("b")]), []);
  assert.deepEqual(pairs([steps("a", 4, 2), steps("b", 4, 3)]), []);
  assert.deepEqual(pairs([steps("a", 4, 2), idleInfo("b")]), ["a>b"]);
});

Deno.test("pairs: among destinations with about the same load, one on the source's host", () => {
  const on = (hostName: string): Flags => ({ hostName });
  const infos = [steps("a", 4, 1), steps("b", 4, 41), steps("c", 4, 40), steps("d", 4, 30)];
  assert.deepEqual(pairs(infos), ["a>b"], "hosts are not known");
  const flags = { a: on("x"), b: on("y"), c: on("x"), d: on("x") };
  assert.deepEqual(pairs(infos, {}, flags), ["a>c"]);
  assert.deepEqual(pairs(infos, {}, { ...flags, c: on("z") }), ["a>b"], "d has more load");
  assert.deepEqual(pairs(infos, {}, { ...flags, b: on("x") }), ["a>b"], "the first is on the host");
  const idle = [steps("a", 4, 1), idleInfo("e"), idleInfo("f")];
  assert.deepEqual(pairs(idle, {}, { a: on("x"), e: on("y"), f: on("x") }), ["a>f"]);
  const near = [...idle, steps("g", 4, 100)];
  const far = { a: on("x"), e: on("y"), f: on("y"), g: on("x") };
  assert.deepEqual(pairs(near, {}, far), ["a>e"], "an idle instance is not about as loaded");
});

Deno.test("pairs: two sources of one host do not get the same destination", () => {
  const flags = Object.fromEntries(
    [..."abcd"].map((name) => [name, { hostName: name === "c" ? "y" : "x" }]),
  );
  const infos = [steps("a", 4, 0.5), steps("b", 4, 1), steps("c", 4, 40), steps("d", 4, 40)];
  assert.deepEqual(pairs(infos, {}, flags), ["a>d", "b>c"]);
});

Deno.test("pairs: an instance of a host that is being drained takes nothing", () => {
  const infos = [steps("a", 4, 1), idleInfo("b"), steps("c", 4, 40)];
  for (const pairMigrationPolicy of ["defrag_constrained", "waiting_first"] as const) {
    const options = { pairMigrationPolicy, enableDefrag: true };
    assert.deepEqual(pairs(infos, options, { b: { isHostDrained: true } }), ["a>c"]);
  }
});

Deno.test("balanced: keeps what makes loads more alike and no more", () => {
  // Moving 10 of its blocks leaves the source at (9 + 10) / 3 steps and the other at (60 - 10) / 5.
  assert.deepEqual(pairs([steps("a", 4, 2), steps("b", 4, 15)]), ["a>b"]);
  // The destination would have 20 blocks for 10 requests.
  assert.deepEqual(pairs([steps("a", 4, 2), steps("b", 9, 3.4)]), []);
  // The source would be the less loaded one.
  const large = { lastRunningBlocks: 60 };
  assert.deepEqual(pairs([steps("a", 4, 2, large), steps("b", 4, 20)]), []);
  const options = { enableDefrag: true };
  assert.deepEqual(pairs([steps("a", 4, 2, large), steps("b", 4, 20)], options), ["a>b"]);
});

Deno.test("balanced: is in force without --enable-defrag, whatever is asked for", () => {
  for (const pairMigrationPolicy of ["defrag_constrained", "defrag_relaxed"] as const) {
    assert.equal(pairPolicyInForce({ pairMigrationPolicy, enableDefrag: false }), "balanced");
    const inForce = pairPolicyInForce({ pairMigrationPolicy, enableDefrag: true });
    assert.equal(inForce, pairMigrationPolicy);
  }
});

Deno.test("defrag_relaxed: migrates before anyone is overloaded, and never both ways", () => {
  const infos = [steps("a", 4, 10), steps("b", 4, 20), steps("c", 4, 30), steps("d", 4, 40)];
  const options = { enableDefrag: true, pairMigrationPolicy: "defrag_relaxed" } as const;
  assert.deepEqual(pairs(infos, options), ["a>d", "b>c"]);
  assert.deepEqual(pairs(infos, { ...options, pairMigrationPolicy: "defrag_constrained" }), []);
  assert.deepEqual(
    pairs([steps("a", 4, 10), steps("b", 4, 10)], options),
    [],
    "nothing to even out",
  );
});

Deno.test("draining: the instance gives first whatever the balance, and takes nothing", () => {
  const flags = { a: { isDraining: true } };
  for (const loadMetric of ["remaining_steps", "usage_ratio", "virtual_usage"] as const) {
    const migrateOutThreshold = loadMetric === "usage_ratio" ? 0.99 : 1;
    const infos = [steps("a", 1, 150), steps("b", 4, 20), steps("c", 4, 0.5)];
    const options = { loadMetric, migrateOutThreshold };
    assert.deepEqual(pairs(infos, options, flags), ["a>b"], loadMetric);
    assert.deepEqual(pairs([steps("a", 1, 150), steps("c", 4, 0.2)], options, flags), []);
  }
});

Deno.test("disaggregated: prefill instances give whatever the balance, decode ones even out", () => {
  const type = (instanceType: InstanceType) => ({ instanceType });
  const infos = [
    steps("p", 1, 150, type("prefill")),
    steps("q", 2, 70, type("prefill")),
    steps("d", 4, 1, type("decode")),
    steps("e", 4, 20, type("decode")),
    steps("f", 4, 40, type("decode")),
    steps("g", 4, 30, type("decode")),
    steps("b", 4, 1),
  ];
  assert.deepEqual(pairs(infos, { enablePdDisagg: true }), ["q>f", "p>g", "d>e"]);
  const only = [infos[0], infos[2]];
  assert.deepEqual(pairs(only, { enablePdDisagg: true }), ["p>d"], "however loaded");
  assert.deepEqual(pairs(only, { enablePdDisagg: true }, { d: { isDraining: true } }), []);
});

Deno.test("virtual usage: the smallest freeness gives to the largest", () => {
  const options = {
    loadMetric: "virtual_usage",
    enableDefrag: true,
    pairMigrationPolicy: "defrag_constrained",
  } as const;
  const queued = steps("a", 4, 20, { waitingRequests: 1, firstWaitingBlocks: 90 });
  assert.deepEqual(pairs([queued, steps("b", 4, 10), steps("c", 4, 30)], options), ["a>c"]);
  const high = steps("h", 2, 60, { runningHighPriorityRequests: 1 });
  assert.deepEqual(pairs([high, steps("c", 4, 30)], options), ["h>c"]);
});
