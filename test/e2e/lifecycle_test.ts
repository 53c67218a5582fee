/** Instances that come and go while real clients have streams running. Linux: processes are signalled. */
import assert from "node:assert/strict";
import { toProfileJson } from "../../src/executor/sim/profile_file.ts";
import { builtinProfile } from "../../src/executor/sim/roofline.ts";
import {
  assertSameStreams,
  type Cluster,
  isReady,
  pidOf,
  runAll,
  servingInstances,
  startCluster,
  waitUntilEmpty,
  waitUntilReady,
} from "./cluster.ts";
import { signalIfThere, startServer } from "./harness.ts";
import { type StreamRequest, type StreamResult, variedRequests } from "./streams.ts";

const NUM_TOKENS = 400;
/** Events of all streams after which something happens: half of them are still to come. */
const MIDWAY_EVENTS = 1_200;

/** Runs the streams, and lets something happen when they are midway. */
async function runDisturbed(
  cluster: Cluster,
  requests: readonly StreamRequest[],
  disturb: () => unknown,
): Promise<StreamResult[]> {
  let events = 0;
  return await runAll(cluster, requests, () => {
    if (++events === MIDWAY_EVENTS) disturb();
  });
}

Deno.test("an instance that is killed is replaced; its streams go on with the same tokens", async () => {
  await using cluster = await startCluster(2);
  const requests = variedRequests(8, NUM_TOKENS);
  const quiet = await runAll(cluster, requests);
  const victim = await pidOf(cluster, "instance-0");
  const streams = await runDisturbed(cluster, requests, () => Deno.kill(victim, "SIGKILL"));
  assertSameStreams(streams, quiet);
  await waitUntilReady(cluster);
  await waitUntilEmpty(cluster, 2);
  const ids = (await servingInstances(cluster)).map(({ instanceId }) => instanceId);
  assert.deepEqual(ids, ["instance-1", "instance-2"]);
});

Deno.test("the only instance is killed: streams and new requests wait for the next one", async () => {
  await using cluster = await startCluster(1);
  const requests = variedRequests(8, NUM_TOKENS);
  const quiet = await runAll(cluster, requests);
  const victim = await pidOf(cluster, "instance-0");
  let late: Promise<StreamResult[]> = Promise.resolve([]);
  const streams = await runDisturbed(cluster, requests, async () => {
    Deno.kill(victim, "SIGKILL");
    await cluster.program.waitForLog(/lost instance-0/);
    assert.equal(await isReady(cluster), false);
    late = runAll(cluster, requests.slice(0, 2));
  });
  assertSameStreams(streams, quiet);
  assertSameStreams(await late, quiet.slice(0, 2));
  await waitUntilReady(cluster);
});

Deno.test("an instance that hangs is given up, killed and replaced", async () => {
  await using cluster = await startCluster(2, ["--instance-timeout", "2"]);
  const requests = variedRequests(8, NUM_TOKENS);
  const quiet = await runAll(cluster, requests);
  const victim = await pidOf(cluster, "instance-1");
  const streams = await runDisturbed(cluster, requests, () => {
    signalIfThere(victim, "SIGSTOP"); // on a busy machine it may have been given up before
  });
  assertSameStreams(streams, quiet);
  await cluster.program.waitForLog(/lost instance-1: .*did not answer for 2 s and was killed/);
  await waitUntilReady(cluster);
  assert.ok(!cluster.program.processes().some(({ pid }) => pid === victim));
});

for (const migration of ["rayrpc", null]) {
  const how = migration ? "moves its requests away" : "lets its requests finish";
  Deno.test(`SIGTERM to an instance: it ${how}, ends, and is replaced`, async () => {
    const args = migration ? ["--enable-migration", `--migration-backend=${migration}`] : [];
    await using cluster = await startCluster(2, args);
    // Long enough that some are left when the order to move one comes.
    const requests = variedRequests(8, 3 * NUM_TOKENS);
    const quiet = await runAll(cluster, requests);
    const victim = await pidOf(cluster, "instance-1");
    const streams = await runDisturbed(cluster, requests, () => Deno.kill(victim, "SIGTERM"));
    assertSameStreams(streams, quiet);
    await cluster.program.waitForLog(/instance-1 has stopped/);
    await waitUntilReady(cluster);
    await waitUntilEmpty(cluster, 2);
    assert.equal(/ moved /.test(cluster.program.stderr), migration !== null);
    assert.doesNotMatch(cluster.program.stderr, /lost instance/);
  });
}

Deno.test("SIGTERM to all processes at once, as systemd sends it: streams finish", async () => {
  await using cluster = await startCluster(2);
  const requests = variedRequests(8, NUM_TOKENS);
  const quiet = await runAll(cluster, requests);
  const streams = await runDisturbed(cluster, requests, () => {
    for (const { pid } of cluster.program.processes()) Deno.kill(pid, "SIGTERM");
  });
  assertSameStreams(streams, quiet);
  assert.equal((await cluster.program.end()).code, 0);
  assert.doesNotMatch(cluster.program.stderr, /lost instance|starting instance-2/);
});

Deno.test("a drain that takes too long is cut short: the rest goes on elsewhere", async () => {
  await using cluster = await startCluster(2, ["--drain-timeout", "0.1"]);
  const requests = variedRequests(8, NUM_TOKENS);
  const quiet = await runAll(cluster, requests);
  const victim = await pidOf(cluster, "instance-1");
  const streams = await runDisturbed(cluster, requests, () => Deno.kill(victim, "SIGTERM"));
  assertSameStreams(streams, quiet);
  await waitUntilReady(cluster);
  await waitUntilEmpty(cluster, 2);
});

Deno.test("auto-scaling starts instances under load and stops them without", async () => {
  await using cluster = await startCluster(1, [
    ...["--enable-scaling", "--max-instances", "2", "--scaling-interval", "0.05"],
    // Of 2000 blocks, so that twelve requests are a load.
    ...["--scale-up-threshold", "300", "--scale-down-threshold", "310"],
    ...["--enable-migration", "--migration-backend", "rayrpc"],
  ]);
  const requests = variedRequests(12, NUM_TOKENS);
  const quiet = await runAll(cluster, requests.slice(0, 2));
  while (!/instance-[1-9] is ready/.test(cluster.program.stderr)) {
    const streams = await runAll(cluster, requests);
    assertSameStreams(streams.slice(0, 2), quiet);
  }
  await waitUntilEmpty(cluster, 1);
  await cluster.program.waitForLog(/instance-\d has stopped/);
  assert.equal(await isReady(cluster), true);
  assert.doesNotMatch(cluster.program.stderr, /lost instance/);
});

Deno.test("a service that no instance can serve any more says why and ends", async () => {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  await Deno.writeTextFile(
    path,
    JSON.stringify(toProfileJson([builtinProfile("a10", "llama-7b")])),
  );
  const args = ["--profiling-result-file-path", path, "--model", "llama-7b"];
  await using server = await startServer([...args, "--instance-isolation", "process"]);
  await Deno.remove(path);
  const { pid } = server.program.processes().find(({ command }) => / instance /.test(command))!;
  const waiting = fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "x", max_tokens: 4_000 }),
  });
  await server.program.waitForLog(/dispatched/);
  Deno.kill(pid, "SIGKILL");
  assert.equal((await waiting).status, 503);
  assert.equal((await server.program.end()).code, 1);
  assert.match(server.program.stderr, /an instance did not start, and no other serves: .*\.json/);
});
