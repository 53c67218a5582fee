import assert from "node:assert/strict";
import { clusterReportText } from "../../../../src/cli/doctor/cluster/text.ts";
import type { ClusterDoctorReport } from "../../../../src/cli/doctor/cluster/report.ts";
import { addressOf, hostOf, silent, well } from "./facts.ts";

const textOf = (more: Partial<ClusterDoctorReport> = {}) =>
  clusterReportText({ ...well, problems: [], warnings: [], ...more });

Deno.test("cluster report: store, leader, hosts, addresses, paths and what follows", () => {
  assert.equal(
    textOf(),
    `Cluster etcd://10.0.0.9, examined in 3.0 s

Lease store
  etcd at 10.0.0.9:2379, etcd 3.5.16, keys below /llumnix/llumnix/
  read 0.5 ms, compare-and-set 1.5 ms

Leader
  leader of a at tcp:10.0.0.97:9000, epoch 3; its record changed within 0.4 s (lease 1.5 s)
  serves tiny (float32, up to 2048 tokens)

Hosts
  host    agent  slots  instances  reached             clock  version
  ----  -------  -----  ---------  -------  ----------------  -------
  a     present      1          1   2 of 2          (leader)        1
  b     present      1          1   2 of 2  +0.2 ms ± 1.0 ms        1

Addresses that others are told
  who         host             address  from here
  ----------  ----  ------------------  ---------
  leader         a  tcp:10.0.0.97:9000     1.0 ms
  manager        b  tcp:10.0.0.98:9000     1.0 ms
  instance-0     a  tcp:10.0.0.97:9000     1.0 ms
  instance-1     b  tcp:10.0.0.98:9000     1.0 ms

Paths, over one connection with up to 4 MiB on the way
  from  to  round trip   MB/s  tokens/s moved
  ----  --  ----------  -----  --------------
  a      b      0.5 ms  500.0          500000
  b      a      0.5 ms  100.0          100000

Move or recompute
  The slowest path, from b to a, moves 100000 tokens/s of 1000 bytes of KV cache. Instances compute
  5000 tokens/s of a prompt: moving a request is faster, but for short ones.

All is well.`,
  );
});

Deno.test("cluster report: problems end it, long ones over several lines", () => {
  const text = textOf({ problems: ["x".repeat(60) + " " + "y".repeat(60), "z"], warnings: ["w"] });
  assert.ok(
    text.endsWith(
      `Warnings\n  - w\n\nProblems\n  - ${"x".repeat(60)}\n    ${"y".repeat(60)}\n  - z`,
    ),
    text,
  );
});

Deno.test("cluster report: what is not known is said", () => {
  const { store, leader } = well;
  const text = textOf({
    store: { ...store, server: null, place: null, readMs: null, failure: "away" },
    leader: { ...leader, state: "none", process: null },
    hosts: [hostOf("a", { clock: null, slots: null, agent: "none", versions: [] })],
    addresses: [addressOf("instance-0", "a", silent)],
    paths: [],
    crossover: null,
  });
  assert.match(text, /Leader\n {2}none \(none\)\n/);
  assert.match(text, /^ {2}a +none +- +1 +2 of 2 +\? +\?$/m);
  assert.match(text, /^ {2}instance-0 +a +tcp:10\.0\.0\.97:9000 +no$/m);
  assert.match(text, /not known: there are fewer than two hosts/);
  assert.doesNotMatch(text, /Paths/);
});

Deno.test("cluster report: of many hosts the first ones have a line", () => {
  const hosts = Array.from({ length: 100 }, (_, i) => hostOf(`h${i}`));
  assert.match(textOf({ hosts }), /^ {2}36 more \(--json\)$/m);
});

Deno.test("cluster report: what other processes say cannot steer the terminal", () => {
  const text = textOf({ problems: ["host \x1b[2J\x07\x9b says"] });
  assert.match(text, /host \?\[2J\?\? says/);
});
