import assert from "node:assert/strict";
import type { Peer } from "../../../../src/bus/bus.ts";
import { InProcessBus } from "../../../../src/bus/in_process_bus.ts";
import { realClock } from "../../../../src/core/clock.ts";
import { UnavailableError } from "../../../../src/core/errors.ts";
import {
  choosePaths,
  MAX_MEASURED_PATHS,
  measurePaths,
  numPaths,
} from "../../../../src/cli/doctor/cluster/paths.ts";
import { silently } from "../fake_host.ts";

const names = (count: number) => Array.from({ length: count }, (_, i) => `h${i}`);

Deno.test("cluster paths: all of few hosts, both ways; a ring of many", () => {
  assert.deepEqual(choosePaths(names(1)), []);
  assert.deepEqual(choosePaths(["a", "b"]), [{ from: "a", to: "b" }, { from: "b", to: "a" }]);
  assert.equal(choosePaths(names(5)).length, numPaths(5));
  const ring = choosePaths(names(6));
  assert.equal(ring.length, 6);
  for (const side of ["from", "to"] as const) {
    assert.deepEqual(ring.map((path) => path[side]).sort(), names(6)); // each host once
  }
  assert.equal(choosePaths(names(1_000)).length, MAX_MEASURED_PATHS);
});

Deno.test("cluster paths: one that fails is a line, and a leader that goes ends the rest", async () => {
  const bus = new InProcessBus();
  const speed = { address: "x", roundTripMs: 1, bytesPerSecond: 1, bytes: 1, ms: 1 };
  const asked: string[] = [];
  let goes = () => {};
  await bus.listen("inproc:m", {
    calls: {
      measure_path: ({ data: { from, to } }, peer) => {
        asked.push(`${from}${to}`);
        if (asked.length === 1) throw new UnavailableError("b cannot listen");
        if (asked.length === 2) goes = () => void peer.close();
        return { data: speed };
      },
    },
  });
  const leader = await bus.connect("inproc:m", {}) as Peer;
  const paths = choosePaths(["a", "b", "c"]);
  const first = await measurePaths(leader, paths.slice(0, 2), realClock, silently);
  assert.deepEqual(first, [
    { ...paths[0], speed: null, failure: "b cannot listen" },
    { ...paths[1], speed, failure: null },
  ]);
  goes();
  await leader.close();
  assert.deepEqual(await measurePaths(leader, paths, realClock, silently), []);
});
