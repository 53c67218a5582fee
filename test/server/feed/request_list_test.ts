import assert from "node:assert/strict";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { LatencyHistory } from "../../../src/server/feed/latency_history.ts";
import { MAX_LISTED, RequestList } from "../../../src/server/feed/request_list.ts";
import { WatchedRequests } from "../../../src/server/feed/watched_requests.ts";
import { FakeCluster, request } from "./_fake_cluster.ts";

function make() {
  const cluster = new FakeCluster();
  const watched = new WatchedRequests(cluster, new VirtualClock(), new LatencyHistory());
  return { cluster, watched, list: new RequestList(watched) };
}

Deno.test("a request between two updates is in the list, and out of it", async () => {
  const { cluster, watched, list } = make();
  cluster.places.set("short", "a");
  await watched.submit(request("short"), () => {});
  cluster.output("short", 1, true);
  const { added, ended } = list.update();
  assert.deepEqual(added.map(({ id, instance }) => [id, instance]), [["short", "a"]]);
  assert.deepEqual(ended, [added[0].key]);
  assert.deepEqual(list.requests, []);
  assert.deepEqual(list.update(), { added: [], changed: [], ended: [] });
});

Deno.test("progress is told in twentieths", async () => {
  const { cluster, watched, list } = make();
  await watched.submit(request("r", 100), () => {});
  list.update();
  let numChanges = 0;
  for (let i = 0; i < 100; i++) {
    cluster.output("r", 1);
    numChanges += list.update().changed.length;
  }
  assert.equal(numChanges, 20);
});

Deno.test("an abort ends a request; one that is refused was never there", async () => {
  const { cluster, watched, list } = make();
  await watched.submit(request("r"), () => {});
  list.update();
  watched.abort("r");
  assert.equal(list.update().ended.length, 1);
  cluster.submit = () => Promise.reject(new Error("refused"));
  await assert.rejects(watched.submit(request("s"), () => {}));
  assert.deepEqual(list.update(), { added: [], changed: [], ended: [] });
});

Deno.test("further requests than have a mark are counted, and get one when there is room", async () => {
  const { cluster, watched, list } = make();
  for (let i = 0; i < MAX_LISTED + 3; i++) await watched.submit(request(`r${i}`), () => {});
  assert.equal(list.update().added.length, MAX_LISTED);
  assert.equal(list.unlisted, 3);
  cluster.output("r0", 1, true);
  const { added, ended } = list.update();
  assert.deepEqual([added.map(({ id }) => id), ended.length], [[`r${MAX_LISTED}`], 1]);
  assert.equal(list.unlisted, 2);
});
