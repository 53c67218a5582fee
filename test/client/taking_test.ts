/** Requests that an API server takes over from another one, on a virtual clock. */
import assert from "node:assert/strict";
import { type HeldRequest, RESUME_EPOCH } from "../../src/core/protocol/generate.ts";
import { type FakeCluster, withFakeCluster } from "../manager/fake_cluster.ts";

const held = (tokenIds: number[], epoch: number): HeldRequest => ({
  ...{ tokenIds, epoch, seed: 1, arrivalMs: 2 },
});

const take = (cluster: FakeCluster, leastTokens = 0) =>
  cluster.run(cluster.client.take("a", leastTokens));

const kindOf = (cluster: FakeCluster) =>
  take(cluster).then(() => "found", ({ kind, message }) => `${kind}: ${message}`);

Deno.test("take: the copy of the last owner counts, and of its copies the longest", () =>
  withFakeCluster(3, async (cluster) => {
    const [first, second, third] = cluster.instances.values();
    first.held.set("a", held([1, 2, 3], RESUME_EPOCH));
    second.held.set("a", held([1, 2], 2 * RESUME_EPOCH));
    third.held.set("a", held([1], 2 * RESUME_EPOCH));
    assert.deepEqual(await take(cluster), held([1, 2], 2 * RESUME_EPOCH));
    // The client has more than the last owner: that one does not count, for it has lost tokens.
    assert.deepEqual(await take(cluster, 3), held([1, 2, 3], RESUME_EPOCH));
  }));

Deno.test("take: a request that is between two instances is found at the second attempt", () =>
  withFakeCluster(2, async (cluster) => {
    const [first, second] = cluster.instances.values();
    const taken = cluster.client.take("a", 0);
    await cluster.until(() => first.takes.length > 0 && second.takes.length > 0);
    second.held.set("a", held([1], RESUME_EPOCH));
    assert.deepEqual(await cluster.run(taken), held([1], RESUME_EPOCH));
  }));

Deno.test("take: only when all instances say so a request is not held", () =>
  withFakeCluster(2, async (cluster) => {
    assert.match(await kindOf(cluster), /^not_found: no instance holds the request a/);
    const [first, second] = cluster.instances.values();
    cluster.network.pause(first.instanceId);
    const asked = kindOf(cluster);
    assert.match(
      await asked,
      /^unavailable: an instance that may hold the request does not answer/,
    );
    second.held.set("a", held([1], RESUME_EPOCH));
    const askedMs = cluster.clock.nowMs();
    assert.equal(await kindOf(cluster), "found");
    assert.ok(cluster.clock.nowMs() - askedMs < 1_000, "it waits for an instance that hangs");
  }));

Deno.test("take: a resumption that waits for an instance, and is aborted, leaves its id to the next one", () =>
  withFakeCluster(1, async (cluster) => {
    const [instance] = cluster.instances.values();
    cluster.network.pause(instance.instanceId);
    const first = cluster.submit("a");
    await cluster.pass(10);
    cluster.abort(first);
    const second = cluster.submit("a");
    await cluster.pass(10);
    assert.equal(second.refusal, null);
    cluster.network.resume(instance.instanceId);
    await cluster.until(() => second.hasEnded);
    assert.equal(second.finish?.reason, "length");
    assert.equal(second.numResumptions, 0);
  }));
