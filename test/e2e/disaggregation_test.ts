/** One prefill and two decode instances as processes. */
import assert from "node:assert/strict";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import {
  assertSameStreams,
  type Cluster,
  runAll,
  servingInstances,
  startCluster,
  statusOf,
  waitUntilEmpty,
} from "./cluster.ts";
import { type StreamRequest, type StreamResult, variedRequests } from "./streams.ts";

const NUM_REQUESTS = 8;
const NUM_TOKENS = 120;
/** With a time to wait for a move that is never over: one that is forgotten hangs. */
const disaggregated = [
  "--prefill-hold-timeout=600",
  "--enable-pd-disagg",
  "--num-dispatch-instances=1",
  "--migration-backend=rayrpc",
];
const requests = variedRequests(NUM_REQUESTS, NUM_TOKENS);

let quiet: Promise<StreamResult[]> | null = null;

/** The streams of a single instance. */
function quietStreams(): Promise<StreamResult[]> {
  return quiet ??= (async () => {
    await using cluster = await startCluster(1);
    return await runAll(cluster, requests);
  })();
}

async function infosOf(cluster: Cluster): Promise<InstanceInfo[]> {
  return await Promise.all((await servingInstances(cluster)).map((one) => statusOf(cluster, one)));
}

function outputTokens(infos: readonly InstanceInfo[], type: InstanceInfo["instanceType"]): number {
  return infos.filter(({ instanceType }) => instanceType === type)
    .reduce((sum, { totals }) => sum + totals.outputTokens, 0);
}

function askedTokens(requests: readonly StreamRequest[]): number {
  return requests.reduce((sum, { body }) => sum + body.max_tokens, 0);
}

Deno.test("every stream has its first token from the prefill instance, the rest from decode ones", async () => {
  const expected = await quietStreams();
  await using cluster = await startCluster(3, disaggregated);
  const types = (await servingInstances(cluster)).map(({ instanceType }) => instanceType);
  assert.deepEqual(types, ["prefill", "decode", "decode"]);
  assertSameStreams(await runAll(cluster, requests), expected);
  await waitUntilEmpty(cluster, 3);
  const infos = await infosOf(cluster);
  assert.equal(outputTokens(infos, "prefill"), NUM_REQUESTS);
  assert.equal(outputTokens(infos, "decode"), askedTokens(requests) - NUM_REQUESTS);
  for (const { instanceType, totals, instanceId } of infos) {
    if (instanceType === "decode") assert.ok(totals.outputTokens > 0, `${instanceId} decodes`);
  }
});

Deno.test("streams go on without decode instances, and leave again for one that comes", async () => {
  const expected = await quietStreams();
  await using cluster = await startCluster(3, disaggregated, { env: { LLUMNIX_ADMIN_TOKEN: "t" } });
  await runWhileKilling(cluster, "decode", expected);
  assertSameStreams(await runAll(cluster, requests), expected);

  const response = await fetch(`${cluster.url}/admin/instances`, {
    method: "POST",
    headers: { authorization: "Bearer t" },
  });
  assert.equal(response.status, 202);
  await response.body?.cancel();
  // Also the two that take the places of the killed ones.
  await cluster.program.waitUntil("three decode instances serve", async () => {
    const types = (await servingInstances(cluster)).map(({ instanceType }) => instanceType);
    return types.filter((type) => type === "decode").length === 3;
  });
  const before = outputTokens(await infosOf(cluster), "prefill");
  assertSameStreams(await runAll(cluster, requests), expected);
  assert.equal(outputTokens(await infosOf(cluster), "prefill"), before + NUM_REQUESTS);
});

Deno.test("streams go on without prefill instances", async () => {
  const expected = await quietStreams();
  await using cluster = await startCluster(3, disaggregated);
  await runWhileKilling(cluster, "prefill", expected);
  assertSameStreams(await runAll(cluster, requests), expected);
});

async function runWhileKilling(
  cluster: Cluster,
  type: InstanceInfo["instanceType"],
  expected: readonly StreamResult[],
): Promise<void> {
  const victims = (await servingInstances(cluster))
    .filter(({ instanceType }) => instanceType === type);
  const killAfter = type === "prefill" ? 1 : NUM_REQUESTS * 5;
  let numEvents = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++numEvents !== killAfter) return;
    for (const { pid } of victims) Deno.kill(pid, "SIGKILL");
  });
  assertSameStreams(streams, expected);
  assert.ok(numEvents > killAfter);
}
