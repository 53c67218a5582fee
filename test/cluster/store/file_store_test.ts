import { openLeaseStore } from "../../../src/cluster/store/stores.ts";
import type { LeaseStore } from "../../../src/cluster/store/lease_store.ts";
import { CALL_TIMEOUT_MS, testLeaseStore } from "../../conformance/lease_store.ts";

testLeaseStore({
  name: "file:",
  faults: [],
  missing: null,
  async open() {
    const directory = await Deno.makeTempDir({ prefix: "llumnix-store-" });
    const stores: LeaseStore[] = [];
    return {
      async open() {
        const store = await openLeaseStore(`file:${directory}`, { timeoutMs: CALL_TIMEOUT_MS });
        stores.push(store);
        return store;
      },
      async [Symbol.asyncDispose]() {
        for (const store of stores) await store.close();
        await Deno.remove(directory, { recursive: true });
      },
    };
  },
});
