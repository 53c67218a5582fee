import assert from "node:assert/strict";
import { type Facts, problemsOf, warningsOf } from "../../../../src/cli/doctor/cluster/verdict.ts";
import { addressOf, hostOf, pathOf, silent, well } from "./facts.ts";

/** The one problem, or the one warning, of facts that differ from those where all is well. */
function problem(more: Partial<Facts>): string {
  const found = problemsOf({ ...well, ...more });
  assert.equal(found.length, 1, found.join("\n"));
  return found[0];
}

function warning(more: Partial<Facts>): string {
  const facts = { ...well, ...more };
  assert.deepEqual(problemsOf(facts), []);
  const found = warningsOf(facts);
  assert.equal(found.length, 1, found.join("\n"));
  return found[0];
}

Deno.test("cluster verdict: nothing is wrong where all is well", () => {
  assert.deepEqual(problemsOf(well), []);
  assert.deepEqual(warningsOf(well), []);
});

Deno.test("cluster verdict: the store is away, or cannot be written", () => {
  const { store } = well;
  const away = { ...store, failure: "etcd does not answer", readMs: null, writeMs: null };
  const { leader } = well;
  const unknown = { ...leader, state: "none", epoch: null, process: null } as const;
  assert.match(problem({ store: away, leader: unknown }), /cannot be used: etcd does not answer/);
  assert.match(
    problem({ store: { ...store, writeMs: null, writeFailure: "permission denied" } }),
    /can be read and not written: permission denied/,
  );
});

Deno.test("cluster verdict: nobody leads", () => {
  const { leader } = well;
  const none = { ...leader, process: null, address: null };
  assert.match(problem({ leader: { ...none, state: "none" } }), /no manager has led in etcd:/);
  assert.match(problem({ leader: { ...none, state: "resigned" } }), /has resigned/);
  const silent = { ...leader, state: "silent", beatMs: null, failure: "refused" } as const;
  assert.match(
    problem({ leader: silent }),
    /not changed for 3\.0 s, and its lease is 1\.5 s: the manager at tcp:10\.0\.0\.97:9000 has ended/,
  );
  assert.match(
    problem({ leader: { ...leader, failure: "no answer" } }),
    /^the leader, which advertises tcp:10\.0\.0\.97:9000, could not be examined: no answer$/,
  );
  assert.match(
    problem({ endedManagers: ["tcp:x:1"] }),
    /^a manager stood for election at tcp:x:1 a moment ago, and is not there any more: it was killed/,
  );
  assert.match(warning({ leader: { ...leader, hasChanged: true } }), /another manager took over/);
});

Deno.test("cluster verdict: an address that does not answer is told with its host", () => {
  const addresses = [...well.addresses.slice(0, 3), addressOf("instance-1", "b", silent)];
  assert.equal(
    problem({ addresses }),
    "instance-1 on host b advertises tcp:10.0.0.98:9000, and cannot be reached there from here: no " +
      "answer in 2000 ms",
  );
});

Deno.test("cluster verdict: a loopback address among others is a mistake, reached or not", () => {
  const loopback = { address: "tcp:127.0.0.1:9000", isLoopback: true };
  for (const more of [{}, silent]) {
    const addresses = [
      ...well.addresses.slice(0, 3),
      addressOf("x", "b", { ...loopback, ...more }),
    ];
    const text = problem({ addresses });
    assert.match(text, /^x on host b advertises tcp:127\.0\.0\.1:9000, where no other host/);
    assert.match(text, /--advertise-host/);
  }
  const [, manager, ...rest] = well.addresses;
  assert.match(problem({ addresses: [{ ...manager, ...loopback }, ...rest] }), /--manager-address/);
  // On one machine they are right, and only worth a word.
  const addresses = well.addresses.map((one) => ({ ...one, ...loopback }));
  assert.match(warning({ addresses }), /all addresses are of this machine alone/);
});

Deno.test("cluster verdict: hosts that are away, were refused, or serve something else", () => {
  assert.match(
    problem({ hosts: [hostOf("a"), hostOf("b", { agent: "away", failure: "it is away" })] }),
    /^host b: it is away$/,
  );
  const refusal = {
    host: "c",
    address: "10.0.0.3",
    reason: "two hosts have the name",
    agoMs: 5_000,
  };
  assert.equal(
    problem({ refusals: [refusal] }),
    "host c at 10.0.0.3 was refused 5.0 s ago: two hosts have the name",
  );
  const process = {
    ...well.addresses[1].process!,
    settings: { ...well.settings!, model: "other" },
  };
  const addresses = [...well.addresses];
  addresses[1] = addressOf("manager", "b", { process });
  assert.match(
    problem({ addresses }),
    /the manager on host b has --model other, and the cluster tiny: give all hosts the same/,
  );
});

Deno.test("cluster verdict: clocks that differ by more than a second, for sure", () => {
  const clockOf = (aheadMs: number, uncertaintyMs: number) => ({
    hosts: [hostOf("a"), hostOf("b", { clock: { aheadMs, uncertaintyMs } })],
  });
  assert.match(warning(clockOf(5_000, 10)), /host b is 5\.0 s ahead of the leader's/);
  assert.match(warning(clockOf(-5_000, 10)), /host b is 5\.0 s behind the leader's/);
  assert.deepEqual(warningsOf({ ...well, ...clockOf(5_000, 4_500) }), []);
});

Deno.test("cluster verdict: versions that differ are told with their hosts", () => {
  const hosts = [hostOf("a"), hostOf("b", { versions: ["1", "2"] })];
  assert.match(warning({ hosts }), /^versions differ: 1 on a, b; 2 on b\./);
});

Deno.test("cluster verdict: paths that fail, are slow, or were not measured", () => {
  const failed = { from: "a", to: "b", speed: null, failure: "b cannot listen: refused" };
  assert.match(problem({ paths: [failed] }), /path from a to b could not be measured: b cannot/);
  const crossover = { ...well.crossover!, faster: "recompute" } as const;
  assert.match(warning({ crossover }), /from b to a a request moves more slowly.*crossover auto/);
  assert.equal(
    warning({ paths: [pathOf("a", "b", 1)], numPathsOmitted: 9 }),
    "1 of 10 paths between hosts were measured",
  );
  const hosts = [hostOf("a"), hostOf("b"), hostOf("c", { agent: "none", slots: null })];
  assert.match(warning({ hosts }), /^no agent runs on c: /);
});

Deno.test("cluster verdict: a store that is slow for the lease, and a leader without a follower", () => {
  const store = { ...well.store, writeMs: 800 };
  assert.match(warning({ store }), /took 800 ms at best.*half of the lease.*raise --cluster-lease/);
  // Managers wait longer than that for it.
  assert.deepEqual(warningsOf({ ...well, store: { ...store, writeMs: 700 } }), []);
  const addresses = well.addresses.filter(({ who }) => who !== "manager");
  assert.match(warning({ addresses }), /no other manager follows/);
});
