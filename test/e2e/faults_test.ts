/** Streams of real clients while things happen to the instances. Linux: processes are looked at. */
import assert from "node:assert/strict";
import {
  assertSameStreams,
  type Cluster,
  pidOf,
  runAll,
  startCluster,
  waitUntilEmpty,
} from "./cluster.ts";
import { openFiles } from "./processes.ts";
import { runStream, type StreamRequest, variedRequests } from "./streams.ts";

Deno.test("streams go on when an instance is killed", async () => {
  await using cluster = await startCluster(3);
  const requests = variedRequests(12, 600);
  const quiet = await runAll(cluster, requests);
  const victim = await pidOf(cluster, "instance-1");
  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) Deno.kill(victim, "SIGKILL");
  });
  assertSameStreams(streams, quiet);
  await cluster.program.waitForLog(/lost instance-1/);
  await waitUntilEmpty(cluster, 3);
});

Deno.test("clients that leave in a storm cost the others nothing, and leave nothing", async () => {
  await using cluster = await startCluster(2);
  const requests = variedRequests(6, 600);
  const quiet = await runAll(cluster, requests);
  await leaveAll(cluster, variedRequests(4, 600));
  await waitUntilEmpty(cluster, 2);
  const filesBefore = filesOf(cluster);
  const [streams] = await Promise.all([
    runAll(cluster, requests),
    leaveAll(cluster, variedRequests(80, 2_000)),
  ]);
  assertSameStreams(streams, quiet);
  await waitUntilEmpty(cluster, 2);
  await cluster.program.waitUntil(
    `${filesOf(cluster)} open files were the ${filesBefore} of before`,
    () => filesOf(cluster) <= filesBefore,
  );
});

/** Opens the streams and leaves each after a while: before its first event or up to 40 later. */
async function leaveAll(cluster: Cluster, requests: readonly StreamRequest[]): Promise<void> {
  await Promise.all(requests.map(async (request, i) => {
    const client = new AbortController();
    const patience = i * 7 % 41;
    let events = 0;
    const stream = runStream(cluster.url, request, {
      onEvent: () => ++events >= patience && client.abort(),
      signal: client.signal,
    });
    if (patience === 0) client.abort();
    await assert.rejects(stream);
  }));
}

function filesOf({ program }: Cluster): number {
  return program.processes().reduce((sum, { pid }) => sum + openFiles(pid), 0);
}
