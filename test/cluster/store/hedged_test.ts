import assert from "node:assert/strict";
import { hedged } from "../../../src/cluster/store/hedged.ts";

/** Longer than any test. */
const NEVER_MS = 1_000_000;

/** Attempts that end when the test says so. */
class Attempts {
  readonly begun: PromiseWithResolvers<string>[] = [];

  readonly one = (): Promise<string> => {
    const attempt = Promise.withResolvers<string>();
    this.begun.push(attempt);
    return attempt.promise;
  };

  async untilBegun(count: number): Promise<void> {
    while (this.begun.length < count) await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("hedged: an attempt that answers in time is the only one", async () => {
  const attempts = new Attempts();
  const answer = hedged([attempts.one, attempts.one], NEVER_MS);
  attempts.begun[0].resolve("first");
  assert.equal(await answer, "first");
  assert.equal(attempts.begun.length, 1);
});

Deno.test("hedged: of attempts that take long the first answer counts, whichever it is", async () => {
  for (const winner of [0, 1]) {
    const attempts = new Attempts();
    const answer = hedged([attempts.one, attempts.one], 0);
    await attempts.untilBegun(2);
    attempts.begun[winner].resolve(`attempt ${winner}`);
    attempts.begun[1 - winner].reject(new Error("nobody hears of it"));
    assert.equal(await answer, `attempt ${winner}`);
  }
});

Deno.test("hedged: after a failure the next attempt begins at once; when all have failed, the first error counts", async () => {
  const attempts = new Attempts();
  const answer = hedged([attempts.one, attempts.one, attempts.one], NEVER_MS);
  for (let i = 0; i < 3; i++) {
    await attempts.untilBegun(i + 1);
    attempts.begun[i].reject(new Error(`attempt ${i}`));
  }
  await assert.rejects(answer, /^Error: attempt 0$/);
});

Deno.test("hedged: a failure while another attempt is under way is no answer", async () => {
  const attempts = new Attempts();
  const answer = hedged([attempts.one, attempts.one], 0);
  await attempts.untilBegun(2);
  attempts.begun[1].reject(new Error("away"));
  attempts.begun[0].resolve("late");
  assert.equal(await answer, "late");
});
