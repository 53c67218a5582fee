import assert from "node:assert/strict";
import { basename } from "node:path";
import {
  checkInstanceId,
  instanceOfSocket,
  serviceAddress,
} from "../../src/instance/instance_socket.ts";

Deno.test("instance socket: lies beside the manager's, and tells whose it is", () => {
  for (const id of ["instance-0", "instance-hand-7", "mine", "a.sock", "instance"]) {
    const address = serviceAddress("unix:/run/llumnix/manager.sock", id);
    assert.match(address, /^unix:\/run\/llumnix\//);
    assert.equal(instanceOfSocket(basename(address)), id);
  }
  for (const other of ["manager.sock", "mine.sock", "instance-0", "instance=.sock"]) {
    assert.equal(instanceOfSocket(other), null);
  }
  assert.equal(serviceAddress("tcp:[::1]:80", "mine"), "tcp:[::1]:0");
  const long = `unix:/${"x".repeat(80)}/manager.sock`;
  assert.throws(() => serviceAddress(long, "y".repeat(30)), /socket path .* has \d+ bytes/);
});

Deno.test("instance id: what no file can be called is refused", () => {
  for (const id of ["mine", "0", "a-b_c.d", "x".repeat(64)]) checkInstanceId(id);
  for (const id of ["", "a/b", "..", "-x", "a b", "é", "x".repeat(65)]) {
    assert.throws(() => checkInstanceId(id), {
      name: "UsageError",
      message: /--instance-id ".*": /,
    });
  }
});
