import assert from "node:assert/strict";
import { join } from "node:path";
import { UsageError } from "../../../src/core/errors.ts";
import { openLeaseStore, parseStoreUrl } from "../../../src/cluster/store/stores.ts";
import { namesOfKey, storeKey, StoreRefusedError } from "../../../src/cluster/store/lease_store.ts";

Deno.test("lease stores: a URL names servers and cluster", () => {
  const parse = (url: string) => {
    const { kind, servers, path } = parseStoreUrl(url);
    return [kind.scheme, servers, path];
  };
  assert.deepEqual(parse("etcd://a"), ["etcd", ["a:2379"], "llumnix"]);
  assert.deepEqual(parse("etcd://a:1,b.example,[::1]:7/blue"), [
    "etcd",
    ["a:1", "b.example:2379", "[::1]:7"],
    "blue",
  ]);
  assert.deepEqual(parse("nats://10.0.0.1/"), ["nats", ["10.0.0.1:4222"], "llumnix"]);
  assert.deepEqual(parse("file:/run/x"), ["file", [], "/run/x"]);
  assert.deepEqual(parse("file:///run/x"), ["file", [], "/run/x"]);
});

for (
  const [url, reason] of [
    ["etcd", /it has no scheme/],
    ["redis://a", /the scheme is not known; expected etcd:\/\/HOST/],
    ["etcd://", /"" is not HOST or HOST:PORT/],
    ["etcd:a", /it has no servers/],
    ["etcd://a:0", /"a:0" is not HOST/],
    ["etcd://a:70000", /"a:70000" is not HOST/],
    ["etcd://a,,b", /"" is not HOST/],
    ["etcd://a/b/c", /it has no servers|name/],
    ["etcd://a/b c", /the cluster's name "b c"/],
    ["nats://user:secret@a", /credentials in a URL/],
    [`etcd://${Array(17).fill("a").join(",")}`, /more than 16 servers/],
    ["file:relative", /the path has to be absolute/],
  ] as const
) {
  Deno.test(`lease stores: ${url.slice(0, 30)} is refused by name`, () => {
    assert.throws(() => parseStoreUrl(url), (error) => {
      assert.ok(error instanceof UsageError);
      return reason.test(error.message);
    });
  });
}

Deno.test("lease stores: what refuses a URL with credentials does not show them", () => {
  const forms = ["nats://user:secret@a", "etcd://user:secret/@a", "etcd:secret@a", "x://secret@a"];
  for (const url of forms) {
    assert.throws(() => parseStoreUrl(url), ({ message }) => {
      assert.match(message, /^"\w+:(\/\/)?\*\*\*@a" is not the URL of a cluster/);
      return !message.includes("secret");
    });
  }
});

Deno.test("lease stores: names make keys that every store takes, and come back", () => {
  assert.equal(storeKey("hosts", "gpu_1.example"), "hosts/gpu=5F1=2Eexample");
  for (const name of ["a", "a/b", "ünï", "=41", "100%", "*>", "\u{1F600}"]) {
    assert.deepEqual(namesOfKey(storeKey("hosts", name)), ["hosts", name]);
  }
  assert.throws(() => storeKey("hosts", ""), /is not a key/);
  assert.throws(() => storeKey("hosts", "x".repeat(300)), /is not a key/);
});

Deno.test("lease store file: a directory that others can write, and a damaged file, are refused", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.chmod(directory, 0o777);
    await assert.rejects(openLeaseStore(`file:${directory}`), /can be written by other users/);
    await Deno.chmod(directory, 0o700);
    const store = await openLeaseStore(`file:${directory}`);
    for (const text of ["{", "{}", '{"revision":-1,"compacted":0,"entries":[]}']) {
      await Deno.writeTextFile(join(directory, "store.json"), text);
      await assert.rejects(store.get("leader"), StoreRefusedError);
      await assert.rejects(store.set("leader", "1", 0), StoreRefusedError);
    }
    await store.close();
    const file = join(directory, "store.json");
    await assert.rejects(openLeaseStore(`file:${file}`), UsageError);
    await assert.rejects(openLeaseStore("file:/x", { credentials: { token: "t" } }), UsageError);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("lease store file: what must exist is not made", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const url = `file:${join(directory, "none")}`;
    await assert.rejects(
      openLeaseStore(url, { mustExist: true }),
      /no process has used .*none as a lease store/,
    );
    assert.deepEqual([...Deno.readDirSync(directory)], []);
    await (await openLeaseStore(url)).close();
    await (await openLeaseStore(url, { mustExist: true })).close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
