import assert from "node:assert/strict";
import { basename } from "node:path";
import {
  checkHost,
  checkHostOf,
  checkInstanceId,
  checkOwnAddress,
  instanceOfSocket,
  serviceAddress,
} from "../../src/instance/instance_socket.ts";

Deno.test("instance socket: lies beside the manager's, and tells whose it is", () => {
  for (const id of ["instance-0", "instance-hand-7", "mine", "a.sock", "instance"]) {
    const address = serviceAddress("unix:/run/llumnix/manager.sock", id, null);
    assert.match(address, /^unix:\/run\/llumnix\//);
    assert.equal(instanceOfSocket(basename(address)), id);
  }
  for (const other of ["manager.sock", "mine.sock", "instance-0", "instance=.sock"]) {
    assert.equal(instanceOfSocket(other), null);
  }
  const long = `unix:/${"x".repeat(80)}/manager.sock`;
  assert.throws(() => serviceAddress(long, "y".repeat(30), null), /socket path .* has \d+ bytes/);
});

Deno.test("instance socket: over TCP it is at the instance's host, not at the manager's", () => {
  assert.equal(serviceAddress("tcp:10.0.0.1:80", "mine", "10.0.0.2"), "tcp:10.0.0.2:0");
  assert.equal(serviceAddress("tcp:manager:80", "mine", "::1"), "tcp:[::1]:0");
  assert.throws(() => serviceAddress("tcp:10.0.0.1:80", "mine", null), /the manager is gone/);
});

Deno.test("instance socket: an address that nobody can connect to is not announced", () => {
  for (const host of ["10.0.0.2", "127.0.0.1", "::1", "fd00::2"]) checkHost(host);
  for (const host of ["0.0.0.0", "::", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "", "somewhere"]) {
    assert.throws(() => checkHost(host), {
      name: "UsageError",
      message: /--host ".*": .* expected an IP address of this host that they reach/,
    });
  }
});

Deno.test("instance socket: beside a manager for other hosts, an address of this host alone is refused", () => {
  for (const manager of ["tcp:10.0.0.1:9000", "tcp:manager:9000", "tcp:[fd00::1]:9000"]) {
    for (const host of ["127.0.0.1", "::1"]) {
      assert.throws(() => checkHostOf(manager, host, "--advertise-host"), {
        name: "UsageError",
        message:
          /^--advertise-host .*the manager is at tcp:.*:9000\. Expected an IP address of this/,
      });
    }
    checkHostOf(manager, "10.0.0.2");
    assert.throws(() => checkHostOf(manager, "0.0.0.0", "--advertise-host"), /^UsageError: --adv/);
  }
  for (const manager of ["tcp:127.0.0.1:9000", "tcp:localhost:9000", "unix:/run/manager.sock"]) {
    checkHostOf(manager, "127.0.0.1");
  }
});

Deno.test("instance socket: an address that this host does not have is refused, with those that it has", () => {
  for (const host of ["127.0.0.1", "127.1.2.3"]) checkOwnAddress(host);
  assert.throws(() => checkOwnAddress("192.0.2.1", "--advertise-host"), {
    name: "UnavailableError",
    message: /^--advertise-host 192\.0\.2\.1: this host has no such address; it has (?!127\.)\S/,
  });
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
