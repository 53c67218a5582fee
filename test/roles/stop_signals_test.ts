import assert from "node:assert/strict";
import { StopSignals } from "../../src/roles/stop_signals.ts";

/** Signals at times; which of the two promises resolve, and with what. */
async function after(...signals: [signal: Deno.Signal, atMs: number][]) {
  let nowMs = 0;
  using stop = new StopSignals(() => nowMs);
  for (const [signal, atMs] of signals) {
    nowMs = atMs;
    stop.receive(signal);
  }
  const pending = new Promise<null>((resolve) => setTimeout(() => resolve(null), 0));
  return await Promise.all([stop.first, stop.second].map((it) => Promise.race([it, pending])));
}

Deno.test("an echo of the first signal is not a second one", async () => {
  assert.deepEqual(await after(["SIGINT", 0]), ["SIGINT", null]);
  assert.deepEqual(await after(["SIGINT", 0], ["SIGINT", 5]), ["SIGINT", null]);
  assert.deepEqual(await after(["SIGINT", 0], ["SIGINT", 5], ["SIGINT", 20]), ["SIGINT", null]);
  assert.deepEqual(await after(["SIGTERM", 0], ["SIGTERM", 2]), ["SIGTERM", null]);
});

Deno.test("a second press stops, and so does another signal later", async () => {
  const pressed = await after(["SIGINT", 0], ["SIGINT", 5], ["SIGINT", 400]);
  assert.deepEqual(pressed, ["SIGINT", "SIGINT"]);
  assert.deepEqual(await after(["SIGINT", 0], ["SIGTERM", 5]), ["SIGINT", null]);
  assert.deepEqual(await after(["SIGINT", 0], ["SIGTERM", 500]), ["SIGINT", "SIGTERM"]);
});
