/** Streams of real clients while things happen to the instances. Linux: processes are looked at. */
import { leave } from "./chaos.ts";
import {
  assertSameStreams,
  type Cluster,
  pidOf,
  runAll,
  startCluster,
  waitUntilEmpty,
} from "./cluster.ts";
import { openFiles } from "./processes.ts";
import { variedRequests } from "./streams.ts";

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
  await leave(cluster, 4, 10);
  await waitUntilEmpty(cluster, 2);
  const filesBefore = filesOf(cluster);
  const [streams] = await Promise.all([
    runAll(cluster, requests),
    ...[0, 1, 5, 40].map((patience) => leave(cluster, 20, patience)),
  ]);
  assertSameStreams(streams, quiet);
  await waitUntilEmpty(cluster, 2);
  await cluster.program.waitUntil(
    `${filesOf(cluster)} open files were the ${filesBefore} of before`,
    () => filesOf(cluster) <= filesBefore,
  );
});

function filesOf({ program }: Cluster): number {
  return program.processes().reduce((sum, { pid }) => sum + openFiles(pid), 0);
}
