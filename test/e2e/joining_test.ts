/** Instances that come by hand with other settings than the service's. */
import assert from "node:assert/strict";
import { restless, runAll, small, waitUntilEmpty } from "./cluster.ts";
import { User } from "./roles.ts";
import { variedRequests } from "./streams.ts";

Deno.test("joining: an instance with another migration backend serves, and the others go on moving", async () => {
  await using user = new User();
  const manager = user.manager("--initial-instances", "2", ...restless);
  const cluster = await user.cluster();
  const instance = user.start(
    "instance",
    ...small,
    "--enable-migration",
    "--migration-backend=rayrpc",
  );
  await manager.waitForLog(
    /instance-hand-\d+ takes no part in migration: its migration backend is rayrpc, and this service's gloo/,
  );
  const numMoved = () => [...manager.stderr.matchAll(/ moved \S+ from /g)].length;
  for (const isThere of [true, false]) {
    if (!isThere) assert.equal((await instance.stop("SIGINT")).code, 0);
    const before = numMoved();
    while (numMoved() < before + 4) await runAll(cluster, variedRequests(8, 200));
  }
  assert.doesNotMatch(manager.stderr, /transfer thread|instance-[01] takes no part|not ready/);
  await waitUntilEmpty(cluster, 2);
  assert.equal((await cluster.program.stop()).code, 0);
  assert.equal((await manager.stop()).code, 0);
});
