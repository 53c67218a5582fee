import assert from "node:assert/strict";
import { examineStore } from "../../../../src/cli/doctor/cluster/store.ts";
import { openLeaseStore } from "../../../../src/cluster/store/stores.ts";
import {
  type LeaseStore,
  StoreAwayError,
  StoreRefusedError,
} from "../../../../src/cluster/store/lease_store.ts";

async function withStore(test: (store: LeaseStore) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const store = await openLeaseStore(`file:${directory}`);
    await test(store);
    await store.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** The store with some of its calls replaced. */
function changed(store: LeaseStore, more: Partial<LeaseStore>): LeaseStore {
  return {
    name: store.name,
    get: (key) => store.get(key),
    set: (...args) => store.set(...args),
    list: (scope) => store.list(scope),
    watch: (...args) => store.watch(...args),
    describe: () => store.describe(),
    close: () => store.close(),
    ...more,
  };
}

Deno.test("cluster store: read, written, and nothing is left there", async () => {
  await withStore(async (store) => {
    const { readMs, writeMs, failure, writeFailure, server } = await examineStore(store);
    assert.ok(readMs! > 0 && writeMs! > 0);
    assert.deepEqual([failure, writeFailure], [null, null]);
    assert.match(server!, /file/);
    assert.deepEqual((await store.list("")).entries, []);
  });
});

Deno.test("cluster store: what a killed doctor has left does not matter", async () => {
  await withStore(async (store) => {
    await store.set("doctor", "left", 0);
    assert.equal((await examineStore(store)).writeFailure, null);
    assert.deepEqual((await store.list("")).entries, []);
  });
});

Deno.test("cluster store: away, read-only, without a version, or always changed by others", async () => {
  await withStore(async (store) => {
    const away = () => Promise.reject(new StoreAwayError("no answer"));
    const gone = await examineStore(changed(store, { get: away, set: away, describe: away }));
    assert.deepEqual([gone.failure, gone.readMs, gone.writeMs], ["no answer", null, null]);
    const refuse = () => Promise.reject(new StoreRefusedError("permission denied"));
    const readOnly = await examineStore(changed(store, { set: refuse, describe: refuse }));
    assert.deepEqual([readOnly.failure, readOnly.writeFailure], [null, "permission denied"]);
    assert.deepEqual([readOnly.server, readOnly.writeMs], [null, null]);
    const busy = await examineStore(changed(store, { set: () => Promise.resolve(null) }));
    assert.match(busy.writeFailure!, /changed with each of 3 attempts/);
  });
});
