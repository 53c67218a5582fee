import assert from "node:assert/strict";
import { UsageError } from "../../src/core/errors.ts";
import { clusterCredentials } from "../../src/roles/cluster_credentials.ts";

const directory = Deno.makeTempDirSync();
const none = { get: () => undefined };

function file(text: string, mode = 0o600): string {
  const path = `${directory}/${crypto.randomUUID()}`;
  Deno.writeTextFileSync(path, text);
  Deno.chmodSync(path, mode);
  return path;
}

Deno.test("credentials: lines of a file; its certificates are read", () => {
  const authority = file("-----BEGIN CERTIFICATE-----\n");
  const path = file(`# of the operator\nUSER = llumnix\n\nPASSWORD=a=b c\nCA_FILE=${authority}\n`);
  assert.deepEqual(clusterCredentials(path, none), {
    user: "llumnix",
    password: "a=b c",
    authority: "-----BEGIN CERTIFICATE-----\n",
  });
});

Deno.test("credentials: the environment without a file, and nothing without either", () => {
  const variables: Record<string, string> = {
    LLUMNIX_CLUSTER_TOKEN: "t",
    LLUMNIX_CLUSTER_NKEY_SEED: "SU1",
    LLUMNIX_CLUSTER_USER: "",
  };
  const env = { get: (name: string) => variables[name] };
  assert.deepEqual(clusterCredentials(null, env), { token: "t", nkeySeed: "SU1" });
  assert.deepEqual(clusterCredentials(file("USER=u"), env), { user: "u" });
  assert.deepEqual(clusterCredentials(null, none), {});
});

Deno.test("credentials: what is wrong is told, and never what is in the file", () => {
  const refusal = (path: string) => {
    try {
      clusterCredentials(path, none);
    } catch (error) {
      assert.ok(error instanceof UsageError);
      return error.message;
    }
    assert.fail("it was accepted");
  };
  const unknown = refusal(file("USER=u\nSECRET=hush\n"));
  assert.match(unknown, /line 2: expected NAME=VALUE, with one of the names USER, PASSWORD/);
  assert.doesNotMatch(unknown, /hush/);
  assert.match(refusal(file("hush")), /line 1: expected NAME=VALUE/);
  assert.match(refusal(file("PASSWORD=\n")), /line 1/);
  assert.match(refusal(file("USER=u", 0o644)), /other users \(mode 644\): close it \(chmod 600/);
  assert.match(refusal(file("USER=u\n".repeat(1000))), /has 7000 bytes: expected at most 4096/);
  assert.match(refusal(`${directory}/none`), /none: no such file/);
  assert.match(refusal(file("CA_FILE=/no/such/file")), /CA_FILE\): no such file/);
});

globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
