import assert from "node:assert/strict";
import { ownManagerAddress } from "../../src/roles/cluster_address.ts";

Deno.test("own manager address: a host that waits for the store says so, once", async () => {
  const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = probe.addr as Deno.NetAddr;
  probe.close();
  const said: string[] = [];
  let store: Deno.Listener | undefined;
  const url = `etcd://127.0.0.1:${port}`;
  try {
    const address = await ownManagerAddress(url, "a", (reason) => {
      said.push(reason);
      store = Deno.listen({ hostname: "127.0.0.1", port });
    });
    assert.equal(address, "tcp:127.0.0.1:9000");
    assert.deepEqual(said, [`waiting for the lease store: no server of ${url} can be reached`]);
  } finally {
    store?.close();
  }
});
