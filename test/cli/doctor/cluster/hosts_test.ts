import assert from "node:assert/strict";
import type { AgentReport, ClusterReport } from "../../../../src/core/protocol/examination.ts";
import { hostReports } from "../../../../src/cli/doctor/cluster/hosts.ts";
import { addressOf, silent } from "./facts.ts";

function agentOf(host: string, more: Partial<AgentReport> = {}): AgentReport {
  return {
    host,
    address: "10.0.0.1",
    slots: 2,
    instances: 1,
    process: { process: host, hostName: host, version: "1", timeMs: 0 },
    clock: { aheadMs: 7, uncertaintyMs: 2, roundTripMs: 2 },
    failure: null,
    ...more,
  };
}

function clusterOf(hosts: readonly AgentReport[]): ClusterReport {
  const instances = [{ instanceId: "i", address: "tcp:x:1", hostName: "c", version: "3" }];
  return { hosts, instances, refusals: [], numHostsOmitted: 0, numInstancesOmitted: 0 };
}

Deno.test("cluster hosts: from agents, addresses and instances, by name", () => {
  const away = agentOf("b", { process: null, clock: null, failure: "away" });
  const clockAhead = (aheadMs: number) => ({ aheadMs, uncertaintyMs: 3, roundTripMs: 4 });
  const reports = hostReports(clusterOf([away, agentOf("a")]), [
    addressOf("leader", "a", { clock: clockAhead(100) }),
    addressOf("manager", "b", { clock: clockAhead(150) }),
    addressOf("i", "c", silent),
    addressOf("j", "b", { process: null, clock: null, failure: "x" }),
  ]);
  assert.deepEqual(
    reports.map(({ host, agent, slots, instances }) => [host, agent, slots, instances]),
    [
      ["a", "present", 2, 1],
      ["b", "away", 2, 1],
      ["c", "none", null, 1],
    ],
  );
  assert.deepEqual(reports.map(({ numReached, numAddresses }) => [numReached, numAddresses]), [
    [1, 1],
    [1, 2],
    [0, 1],
  ]);
  // The leader's measure, else by way of this host, else none.
  assert.deepEqual(reports.map(({ clock }) => clock), [
    { aheadMs: 7, uncertaintyMs: 2 },
    { aheadMs: 50, uncertaintyMs: 6 },
    null,
  ]);
  assert.deepEqual(reports.map(({ versions }) => versions), [["1"], ["1"], ["3"]]);
  assert.deepEqual(reports.map(({ failure }) => failure), [null, "away", null]);
});

Deno.test("cluster hosts: without a leader, what was reached", () => {
  const [report] = hostReports(null, [addressOf("manager", "a")]);
  assert.deepEqual([report.host, report.agent, report.clock], ["a", "none", null]);
});
