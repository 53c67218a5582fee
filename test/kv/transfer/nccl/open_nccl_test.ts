import assert from "node:assert/strict";
import { keepToHost } from "../../../../src/kv/transfer/nccl/interfaces.ts";

Deno.test("nccl: instances of one host open no socket to the network, unless the operator wants it", () => {
  const interfacesOf = (host: string, given: Record<string, string> = {}) => {
    const env = new Map(Object.entries(given));
    keepToHost(host, env);
    return env.get("NCCL_SOCKET_IFNAME");
  };
  assert.equal(interfacesOf("127.0.0.1"), "lo");
  assert.equal(interfacesOf("::1"), "lo");
  assert.equal(interfacesOf("10.0.0.1"), undefined);
  assert.equal(interfacesOf("127.0.0.1", { NCCL_SOCKET_IFNAME: "eth0" }), "eth0");
});
