import assert from "node:assert/strict";
import { UsageError } from "../../src/core/errors.ts";
import { clusterKey, makeKeyFile } from "../../src/roles/cluster_key.ts";

const directory = Deno.makeTempDirSync();
const path = `${directory}/key`;
const env = (written?: string) => ({ get: () => written });
const hex = "ab".repeat(32);

Deno.test("keygen makes a key that only its owner reads, and never overwrites one", () => {
  makeKeyFile(path);
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  const key = clusterKey({ clusterKeyFile: path }, env());
  assert.ok(key instanceof Uint8Array && key.length === 32);
  assert.throws(() => makeKeyFile(path), /is there already: a new key would lock out/);
  assert.deepEqual(clusterKey({ clusterKeyFile: path }, env()), key);
});

Deno.test("a key file that others can read is refused", () => {
  Deno.chmodSync(path, 0o640);
  assert.throws(
    () => clusterKey({ clusterKeyFile: path }, env()),
    (error) =>
      error instanceof UsageError &&
      /other users \(mode 640\): close it \(chmod 600/.test(error.message),
  );
  Deno.chmodSync(path, 0o600);
});

Deno.test("a key comes in hexadecimal or base64, from the environment too; short ones are refused", () => {
  const bytes = Uint8Array.fromHex(hex);
  assert.deepEqual(clusterKey({}, env(hex)), bytes);
  assert.deepEqual(clusterKey({}, env(bytes.toBase64())), bytes);
  assert.equal(clusterKey({}, env()), null);
  assert.throws(
    () => clusterKey({}, env("ab".repeat(31))),
    /LLUMNIX_CLUSTER_KEY has 31 bytes: expected 32/,
  );
  assert.throws(
    () => clusterKey({}, env("correct horse battery")),
    /LLUMNIX_CLUSTER_KEY (is no key|has)/,
  );
  assert.throws(
    () => clusterKey({ clusterKeyFile: `${directory}/none` }, env()),
    /none: no such file/,
  );
});

Deno.test("insecure has to be said, and not along with a key", () => {
  assert.equal(clusterKey({ clusterInsecure: true }, env()), "insecure");
  assert.throws(() => clusterKey({ clusterInsecure: true }, env(hex)), /exclude each other/);
  assert.throws(
    () => clusterKey({ clusterInsecure: true, clusterKeyFile: path }, env()),
    /exclude/,
  );
});

globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
