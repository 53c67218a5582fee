import assert from "node:assert/strict";
import { Random } from "../../../../src/core/random.ts";
import { RoundRobin } from "../../../../src/manager/dispatch/policies/round_robin.ts";
import { candidateOf } from "../support.ts";

const candidates = (ids: Iterable<string>) => [...ids].map((id) => candidateOf(id));

Deno.test("round robin goes through the instances in the order of their ids", () => {
  const policy = new RoundRobin();
  const chosen = Array.from({ length: 7 }, () => policy.choose(candidates("cab")));
  assert.equal(chosen.join(""), "abcabca");
});

Deno.test("round robin goes on after the instance it is told", () => {
  assert.equal(new RoundRobin("a").choose(candidates("cab")), "b");
  assert.equal(new RoundRobin("bb").choose(candidates("cab")), "c");
  assert.equal(new RoundRobin("c").choose(candidates("cab")), "a");
});

Deno.test("round robin is fair to every instance that stays, whoever comes and goes", () => {
  for (let seed = 0; seed < 50; seed++) {
    const random = new Random(seed);
    const policy = new RoundRobin();
    const ids = new Set(["c", "h", "m"]);
    // Requests since an instance that was there all the time was chosen.
    const waits = new Map<string, number>();
    for (let i = 0; i < 300; i++) {
      const visitor = "abdefgijkln"[random.below(11)];
      if (random.below(4) === 0) ids[ids.has(visitor) ? "delete" : "add"](visitor);
      const chosen = policy.choose(candidates(ids));
      assert.ok(ids.has(chosen), `${chosen} is not a candidate`);
      for (const id of ["c", "h", "m"]) {
        waits.set(id, id === chosen ? 0 : (waits.get(id) ?? 0) + 1);
        // A round passes each of the 14 possible ids at most once.
        assert.ok(
          waits.get(id)! < 14,
          `seed ${seed}: ${id} was passed over ${waits.get(id)} times`,
        );
      }
    }
  }
});

Deno.test("round robin spreads evenly over a fixed set", () => {
  const policy = new RoundRobin();
  const ids = Array.from({ length: 11 }, (_, i) => `instance-${i}`);
  const counts = new Map<string, number>();
  for (let i = 0; i < 11 * 30; i++) {
    const id = policy.choose(candidates(ids));
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  assert.deepEqual([...counts.values()], Array(11).fill(30));
});
