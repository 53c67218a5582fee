/** Requests that their instances die of, among others that do not deserve it. */
import assert from "node:assert/strict";
import { ClientRequest } from "../../src/client/client_request.ts";
import { InstanceLink } from "../../src/client/instance_link.ts";
import { PoisonDetector } from "../../src/client/poison_detector.ts";
import { IsolationLease } from "../../src/manager/dispatch/isolation_lease.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { type FakeCluster, type TrackedRequest, withFakeCluster } from "../manager/fake_cluster.ts";
import { generateRequest, registrationOf } from "../manager/support.ts";

const isPoison = (requestId: string, index = 0) => requestId.startsWith("poison") && index >= 0;

/** All but the poison finish; that fails with the reason. */
async function checkEnds(cluster: FakeCluster, requests: readonly TrackedRequest[]): Promise<void> {
  await cluster.until(() => requests.every(({ hasEnded }) => hasEnded), 300_000);
  for (const { requestId, finish } of requests) {
    if (!isPoison(requestId)) assert.equal(finish?.reason, "length", requestId);
    else {assert.match(
        finish!.error!.message,
        /instances in a row were lost just after it started there/,
      );}
  }
}

for (const instances of [1, 2, 4]) {
  Deno.test(`PoisonDetector: with ${instances} instances a deadly request fails alone`, () =>
    withFakeCluster(instances, async (cluster) => {
      cluster.isDeadly = isPoison;
      const before = Array.from({ length: 60 }, (_, i) => cluster.submit(`before${i}`, 400));
      await cluster.until(() => before.every(({ numTokens }) => numTokens > 10));
      const poison = cluster.submit("poison");
      const after = Array.from({ length: 60 }, (_, i) => cluster.submit(`after${i}`, 50));
      await checkEnds(cluster, [...before, poison, ...after]);
      assert.equal(cluster.manager.statistics().lostInstances, 5);
    }));
}

Deno.test("PoisonDetector: one that is deadly at a certain token is no different", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.isDeadly = (requestId, index) => isPoison(requestId) && index === 30;
    const ids = ["poison", ...Array.from({ length: 40 }, (_, i) => `r${i}`)];
    await checkEnds(cluster, ids.map((id) => cluster.submit(id, 200)));
  }));

Deno.test("PoisonDetector: two deadly requests fail, and nobody else", () =>
  withFakeCluster(1, async (cluster) => {
    cluster.isDeadly = isPoison;
    const ids = ["r0", "poison0", "r1", "r2", "poison1", "r3", "r4"];
    await checkEnds(cluster, ids.map((id) => cluster.submit(id, 200)));
  }));

Deno.test("PoisonDetector: who waits in a queue while instances die is not suspected for it", () =>
  withFakeCluster(1, async (cluster) => {
    const requests = Array.from({ length: 110 }, (_, i) => cluster.submit(`r${i}`, 500));
    for (let i = 0; i < 7; i++) {
      await cluster.pass(1_500);
      cluster.kill([...cluster.instances.keys()][0]);
    }
    await checkEnds(cluster, requests);
  }));

Deno.test("PoisonDetector: one that is deadly as it arrives is no different", () =>
  withFakeCluster(2, async (cluster) => {
    cluster.isDeadly = (requestId, index) => requestId === "poison" && index === -1;
    const others = Array.from({ length: 20 }, (_, i) => cluster.submit(`r${i}`, 300));
    const poison = cluster.submit("poison");
    await cluster.until(() => poison.hasEnded && others.every(({ hasEnded }) => hasEnded), 300_000);
    assert.match(poison.refusal!.message, /5 instances in a row were lost/);
    assert.ok(others.every(({ finish }) => finish?.reason === "length"));
  }));

async function passOn(clock: VirtualClock, ms: number): Promise<void> {
  let isOver = false;
  clock.after(ms, () => isOver = true);
  await clock.runUntil(() => isOver);
}

function linkTo(progressedMs: number, longestStepMs?: number | null): InstanceLink {
  return {
    registration: { ...registrationOf("instance-0", "inproc:instance-0"), longestStepMs },
    requests: new Set<ClientRequest>(),
    progressedMs,
    formerProgressedMs: -Infinity,
    noteProgress: InstanceLink.prototype.noteProgress,
  } as InstanceLink;
}

Deno.test("PoisonDetector: the trial of one that ends is over, and those that ended wait no more", async () => {
  const clock = new VirtualClock(0), detector = new PoisonDetector(clock);
  const [a, b, c] = ["a", "b", "c"].map((id) => new ClientRequest(generateRequest(id), () => {}));
  const resumed: string[] = [];
  for (const request of [a, b, c]) {
    assert.deepEqual([detector.noteLoss(request), detector.noteLoss(request)], [null, null]);
    detector.release(request, () => resumed.push(request.requestId));
  }
  await passOn(clock, 1);
  assert.deepEqual(resumed, ["a"]);
  b.abort();
  detector.forget(a);
  await passOn(clock, 1);
  assert.deepEqual(resumed, ["a", "b", "c"]);
  detector.close();
});

Deno.test("PoisonDetector: nobody is tried until all others that were lost have survived", async () => {
  const clock = new VirtualClock(0), detector = new PoisonDetector(clock);
  const link = linkTo(0);
  const [suspect, other] = ["suspect", "other"].map((id) => {
    return new ClientRequest(generateRequest(id), () => {});
  });
  let isTried = false;
  for (let i = 0; i < 2; i++) detector.noteLoss(suspect);
  detector.release(suspect, () => isTried = true);
  detector.noteLoss(other);
  detector.release(other, () => {});
  await passOn(clock, 5_000);
  assert.equal(isTried, false, "an instance is sought for the other");
  other.giveTo(link);
  other.givenMs = clock.nowMs();
  await passOn(clock, 900);
  assert.equal(isTried, false, "it has yet to survive");
  await passOn(clock, 100);
  other.noteProgress(clock.nowMs());
  await passOn(clock, 1_000);
  assert.equal(isTried, false, "it has got one token");
  other.noteProgress(clock.nowMs());
  await passOn(clock, 200);
  assert.equal(isTried, true);
  detector.close();
});

Deno.test("PoisonDetector: one that got a token and then stood still did not survive", () => {
  const clock = new VirtualClock(0), detector = new PoisonDetector(clock);
  const request = new ClientRequest(generateRequest("a"), () => {});
  const lose = (...tokensMs: number[]) => {
    request.giveTo(linkTo(0));
    request.givenMs = 0;
    for (const tokenMs of tokensMs) request.noteProgress(tokenMs);
    detector.noteLoss(request);
    return detector.lossesInARow(request);
  };
  assert.deepEqual([lose(100), lose(0, 999), lose(0, 1_000), lose(100)], [1, 2, 0, 1]);
  assert.equal(lose(), 2, "no token");
  assert.equal(lose(3_000), 3, "it waited in a queue");
  assert.equal(lose(3_000, 3_999), 4, "it waited in a queue, and had yet to show what it does");
  assert.equal(lose(3_000, 4_000), 0);
  detector.close();
});

Deno.test("PoisonDetector: while a step may hang nobody else is tried, for a bounded time", async () => {
  const clock = new VirtualClock(0), detector = new PoisonDetector(clock);
  const link = linkTo(-Infinity);
  const resumedMs = new Map<string, number>();
  for (const id of ["a", "b"]) {
    const request = new ClientRequest(generateRequest(id), () => {});
    assert.deepEqual([detector.noteLoss(request), detector.noteLoss(request)], [null, null]);
    detector.release(request, () => {
      resumedMs.set(id, clock.nowMs());
      request.giveTo(link);
      request.givenMs = clock.nowMs();
    });
  }
  await passOn(clock, 30_000);
  assert.deepEqual([...resumedMs], [["a", 0]]);
  link.noteProgress(29_900);
  link.noteProgress(30_000); // others get tokens there: it waits in a queue
  await clock.runUntil(() => resumedMs.has("b"));
  assert.equal(resumedMs.get("b"), 30_000);
  link.progressedMs = link.formerProgressedMs = -Infinity;
  await clock.runUntil(() => link.requests.size === 0);
  detector.close();
});

Deno.test("PoisonDetector: a step is waited for as long as its instance waits", async () => {
  const limits = [[5_000, 10_000], [150_000, 155_000], [null, 80_000], [
    undefined,
    80_000,
  ]] as const;
  for (const [longestStepMs, silentMs] of limits) {
    const clock = new VirtualClock(0), detector = new PoisonDetector(clock);
    const link = linkTo(-Infinity, longestStepMs);
    let resumedMs = 0;
    for (const id of ["a", "b"]) {
      const request = new ClientRequest(generateRequest(id), () => {});
      for (let i = 0; i < 2; i++) detector.noteLoss(request);
      detector.release(request, () => {
        resumedMs = clock.nowMs();
        request.giveTo(link);
        request.givenMs = clock.nowMs();
      });
    }
    await clock.runUntil(() => resumedMs > 0);
    assert.ok(Math.abs(resumedMs - silentMs) <= 1_000, `${resumedMs} ms`);
    detector.close();
  }
});

/** Three times one is tried alone; `live` lets it come to nothing. @returns why it fails */
async function tryInVain(
  link: InstanceLink,
  clock: VirtualClock,
  live: () => Promise<void>,
): Promise<string | null> {
  const detector = new PoisonDetector(clock);
  const request = new ClientRequest(generateRequest("a"), () => {});
  let objection: string | null = null;
  for (let i = 0; i < 2; i++) detector.noteLoss(request);
  for (let i = 0; i < 3; i++) {
    detector.release(request, () => {
      request.giveTo(link);
      request.givenMs = clock.nowMs();
    });
    await live();
    request.own(null, request.epoch);
    objection = detector.noteLoss(request);
  }
  detector.close();
  return objection;
}

Deno.test("PoisonDetector: one that comes during a long step is tried in the next", async () => {
  const clock = new VirtualClock(0), link = linkTo(0);
  const endStep = async () => {
    await passOn(clock, 3_000);
    link.noteProgress(clock.nowMs());
  };
  const objection = await tryInVain(link, clock, async () => {
    await endStep();
    await passOn(clock, 2_500);
  });
  assert.match(objection ?? "", /5 instances in a row/);
  const ofQueue = await tryInVain(link, clock, async () => {
    await endStep();
    await endStep();
    await passOn(clock, 2_500);
  });
  assert.equal(ofQueue, null);
});

Deno.test("PoisonDetector: one whose step is as long as steps can be is tried to its end", async () => {
  const clock = new VirtualClock(0), link = linkTo(-Infinity, 200_000);
  const objection = await tryInVain(link, clock, async () => {
    await passOn(clock, 60_000);
    link.noteProgress(clock.nowMs()); // the step that ran when it came
    await passOn(clock, 200_000);
  });
  assert.match(objection ?? "", /5 instances in a row/);
});

Deno.test("PoisonDetector: others are told for as long as one is tried or has yet to survive", async () => {
  const clock = new VirtualClock(0), toldMs: number[] = [];
  const detector = new PoisonDetector(clock, () => toldMs.push(clock.nowMs()));
  const request = new ClientRequest(generateRequest("a"), () => {});
  const give = () => {
    request.giveTo(linkTo(-Infinity));
    request.givenMs = clock.nowMs();
  };
  detector.noteLoss(request);
  detector.release(request, give);
  await passOn(clock, 1_200);
  assert.deepEqual(toldMs, [0, 500, 1_000]);
  request.noteProgress(clock.nowMs());
  request.noteProgress(clock.nowMs() + 1_000);
  await passOn(clock, 3_000);
  assert.deepEqual(toldMs.splice(0), [0, 500, 1_000], "it has survived");

  const startMs = clock.nowMs();
  give();
  for (let i = 0; i < 2; i++) {
    detector.noteLoss(request);
  }
  request.own(null, request.epoch);
  detector.release(request, () => {}); // it is refused: another API server tries one
  await passOn(clock, 1_200);
  assert.deepEqual(toldMs, []);
  give();
  await passOn(clock, 1_000);
  assert.deepEqual(toldMs.splice(0), [startMs + 1_500, startMs + 2_000]);
  detector.forget(request);
  await passOn(clock, 3_000);
  assert.deepEqual(toldMs, []);
  detector.close();
});

Deno.test("PoisonDetector: API servers try one after the other", () => {
  const lease = new IsolationLease();
  assert.ok(lease.take("a", 0));
  assert.ok(!lease.take("b", 999));
  assert.ok(lease.take("a", 999));
  assert.ok(!lease.take("b", 1_500));
  assert.ok(lease.take("b", 1_999));
  assert.ok(!lease.take("a", 2_000));
});

Deno.test("PoisonDetector: nobody tries any while another API server's have yet to survive", () => {
  const lease = new IsolationLease();
  lease.keep("a", 0);
  lease.keep("b", 500);
  assert.ok(!lease.take("b", 999) && !lease.take("a", 1_000));
  assert.ok(lease.take("b", 1_000));
  lease.keep("b", 1_800);
  assert.ok(!lease.take("a", 2_500));
  assert.ok(lease.take("a", 2_800));
});

/** Instances die of the request `poison` whenever it got so many more tokens. */
function killEvery(tokens: number, cluster: FakeCluster): void {
  let lastIndex = 0;
  cluster.isDeadly = (requestId, index) => {
    if (requestId !== "poison" || index < lastIndex + tokens) return false;
    lastIndex = index;
    return true;
  };
}

Deno.test("PoisonDetector: one that gets a little further each time is no different", () =>
  withFakeCluster(1, async (cluster) => {
    killEvery(3, cluster);
    await checkEnds(cluster, ["r0", "poison", "r1"].map((id) => cluster.submit(id, 1_000)));
  }));

Deno.test("PoisonDetector: one that gets far each time fails in the end", () =>
  withFakeCluster(2, async (cluster) => {
    killEvery(60, cluster);
    const poison = cluster.submit("poison", 2_000), other = cluster.submit("other", 100);
    await cluster.until(() => poison.hasEnded && other.hasEnded, 300_000);
    assert.equal(poison.numResumptions, 20);
    assert.match(poison.finish!.error!.message, /resumed 20 times already/);
    assert.equal(other.finish?.reason, "length");
  }));
