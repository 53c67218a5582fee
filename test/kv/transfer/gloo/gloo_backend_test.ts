import assert from "node:assert/strict";
import { realClock } from "../../../../src/core/clock.ts";
import type { TransferLimits } from "../../../../src/kv/transfer/backend.ts";
import { type BackendPair, testMigrationBackend } from "../../../conformance/migration_backend.ts";
import { form, openEnd } from "./support.ts";

async function openPair(limits: TransferLimits, hasMemory: boolean): Promise<BackendPair> {
  const source = await openEnd("source", { limits, hasMemory });
  const destination = await openEnd("destination", { limits, hasMemory });
  assert.deepEqual(await form([source, destination]), [[], []]);
  return {
    source,
    destination,
    instanceIdOf: (end) => end === source ? "source" : "destination",
    nowMs: () => realClock.nowMs(),
    settle: (promise) => promise,
    close: async () => {
      await source.backend.close();
      await destination.backend.close();
    },
  };
}

testMigrationBackend({
  name: "gloo",
  hasData: true,
  open: (limits) => openPair(limits, true),
});
testMigrationBackend({
  name: "gloo, without memory",
  hasData: false,
  open: (limits) => openPair(limits, false),
});
