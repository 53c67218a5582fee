import assert from "node:assert/strict";
import { nvidiaFile, unusedDeviceNotice } from "../../../src/cli/doctor/nvidia_files.ts";

Deno.test("a device is seen by its file, or by the driver's", () => {
  for (const file of ["/dev/nvidia0", "/proc/driver/nvidia/version"]) {
    assert.equal(nvidiaFile((path) => path === file), file);
  }
  assert.equal(nvidiaFile(() => false), null);
});

Deno.test("serve says in one line that it leaves a device alone", () => {
  const notice = unusedDeviceNotice((path) => path === "/dev/nvidia0");
  assert.match(notice!, /^this host has an NVIDIA device \(\/dev\/nvidia0\).* serving on the CPU/);
  assert.doesNotMatch(notice!, /\n/);
  assert.equal(unusedDeviceNotice(() => false), null);
});
