/** An instance dies while requests move all the time out of its memory and into it. */
import assert from "node:assert/strict";
import {
  assertSameStreams,
  pidOf,
  restless,
  runAll,
  startCluster,
  waitUntilEmpty,
} from "./cluster.ts";
import { variedRequests } from "./streams.ts";

const requests = variedRequests(12, 600);

/** The streams of one instance, which nothing disturbs. */
async function quietStreams() {
  await using cluster = await startCluster(1);
  return await runAll(cluster, requests);
}

async function killOne(naming: string): Promise<void> {
  const quiet = await quietStreams();
  await using cluster = await startCluster(3, [
    ...restless,
    "--migration-backend=kvtransfer",
    `--migration-backend-kvtransfer-naming-url=file:${naming}`,
  ]);
  const victim = await pidOf(cluster, "instance-1");
  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) Deno.kill(victim, "SIGKILL");
  });
  assertSameStreams(streams, quiet);
  assert.match(cluster.program.stderr, / moved /);
  await cluster.program.waitForLog(/lost instance-1/);
  // By the instance that starts in its place.
  await cluster.program.waitForLog(/removed the naming entry of instance-1/);
  await waitUntilEmpty(cluster, 3);
}

Deno.test("streams that move by kvtransfer go on when an instance is killed, and its entry is removed", async () => {
  const naming = await Deno.makeTempDir();
  try {
    await killOne(naming);
    assert.deepEqual([...Deno.readDirSync(naming)], [], "instances that stop remove their entries");
  } finally {
    await Deno.remove(naming, { recursive: true });
  }
});
