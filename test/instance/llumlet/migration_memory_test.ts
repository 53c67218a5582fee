import assert from "node:assert/strict";
import { MigrationMemory } from "../../../src/instance/llumlet/migration_memory.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";

Deno.test("MigrationMemory: the first ending counts", () => {
  const memory = new MigrationMemory(new VirtualClock(), 1000);
  assert.equal(memory.get("m"), null);
  memory.add("m", "committed");
  memory.add("m", "cancelled");
  assert.equal(memory.get("m"), "committed");
});

Deno.test("MigrationMemory: bounded in time and in number", () => {
  const clock = new VirtualClock();
  const memory = new MigrationMemory(clock, 1000);
  memory.add("old", "committed");
  clock.after(999, () => {});
  clock.step();
  memory.add("young", "committed");
  assert.equal(memory.get("old"), "committed");
  clock.after(1, () => {});
  clock.step();
  memory.add("next", "cancelled");
  assert.equal(memory.get("old"), null);
  assert.equal(memory.get("young"), "committed");
  for (let i = 0; i < 5000; i++) memory.add(`m${i}`, "cancelled");
  assert.equal(memory.get("young"), null);
  assert.equal(memory.get("m4999"), "cancelled");
});
