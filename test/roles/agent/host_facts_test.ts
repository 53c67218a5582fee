import assert from "node:assert/strict";
import {
  hostName,
  hostResources,
  hostSlots,
  machineId,
} from "../../../src/roles/agent/host_facts.ts";

Deno.test("host: its name is the system's unless one is given, and fits into file names", () => {
  assert.equal(hostName(null, () => "system"), "system");
  assert.equal(hostName("given", () => "system"), "given");
  for (const name of ["", "-a", "a/b", "a b", "a".repeat(64)]) {
    assert.throws(() => hostName(name), /--host-name ".*": expected up to 63 letters/);
  }
  assert.throws(() => hostName(null, () => "my host"), /--host-name "my host"/);
});

Deno.test("host: the machine is the same for all of its processes", () => {
  assert.equal(machineId(), machineId());
  if (Deno.build.os === "linux") assert.match(machineId(), /:net:\[\d+\]$/); // hosts of a test differ
  assert.ok(hostResources().cores > 0 && hostResources().memoryBytes > 0);
});

Deno.test("host: as many slots as devices, or one; more only if devices are shared", () => {
  const alone = { device: "cuda", allowSharedDevice: false, tensorParallelSize: 1 } as const;
  assert.equal(hostSlots(alone, null, 0, 4), 4);
  assert.equal(hostSlots(alone, 2, 0, 4), 2);
  assert.equal(hostSlots(alone, null, 0, 0), 1);
  assert.equal(hostSlots(alone, null, 3, 0), 3);
  assert.throws(() => hostSlots(alone, 5, 0, 4), /--host-slots 5: .* this host shows 4/);
  assert.throws(() => hostSlots(alone, null, 5, 4), /--initial-instances 5: .* this host shows 4/);
  assert.equal(hostSlots({ ...alone, allowSharedDevice: true }, 5, 0, 4), 5);
  const pairs = { ...alone, tensorParallelSize: 2 };
  assert.equal(hostSlots(pairs, null, 0, 5), 2);
  assert.throws(() => hostSlots(pairs, 3, 0, 4), /each instance needs 2 devices of its own/);
});
