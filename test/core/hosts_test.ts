import assert from "node:assert/strict";
import { isLoopback, isUnspecified } from "../../src/core/hosts.ts";

Deno.test("hosts: this host itself, and all addresses of one", () => {
  const own = ["localhost", "LOCALHOST", "127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"];
  const all = ["0.0.0.0", "0", "::", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0"];
  const others = ["10.0.0.1", "127.example.com", "fd00::1", "host", "localhost.example", "1::1"];
  for (const host of [...own, ...all, ...others]) {
    assert.equal(isLoopback(host), own.includes(host), host);
    assert.equal(isUnspecified(host), all.includes(host), host);
  }
});
