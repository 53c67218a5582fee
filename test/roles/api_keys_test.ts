import assert from "node:assert/strict";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { serveGroups } from "../../src/cli/arguments/tables.ts";
import { configTable } from "../../src/cli/print_config.ts";
import { readSettings } from "../../src/cli/settings.ts";
import { API_KEY_VARIABLE } from "../../src/core/environment.ts";
import { apiKeys } from "../../src/roles/api_keys.ts";

Deno.test("API keys come from the option, a file and the environment", () => {
  assert.deepEqual(apiKeys({ apiKey: null, apiKeyFile: null }), []);
  const file = Deno.makeTempFileSync();
  Deno.env.set(API_KEY_VARIABLE, "c");
  try {
    Deno.writeTextFileSync(file, "b1\n\n b2 \na\n");
    assert.deepEqual(apiKeys({ apiKey: ["a"], apiKeyFile: file }), ["a", "b1", "b2", "c"]);
    Deno.writeTextFileSync(file, "\n");
    assert.throws(
      () => apiKeys({ apiKey: null, apiKeyFile: file }),
      /has no key: write one a line/,
    );
  } finally {
    Deno.env.delete(API_KEY_VARIABLE);
    Deno.removeSync(file);
  }
  assert.throws(() => apiKeys({ apiKey: null, apiKeyFile: "/nothing" }), /cannot be read/);
  for (const bad of ["", "two words", "schlüssel"]) {
    assert.throws(
      () => apiKeys({ apiKey: [bad], apiKeyFile: null }),
      /^UsageError: --api-key: a key must consist of visible ASCII characters/,
    );
  }
});

Deno.test("--api-key may be repeated, and --print-config does not show it", async () => {
  const index = new ArgumentIndex(serveGroups);
  const argv = ["--api-key", "hush-1", "--api-key", "hush-2"];
  const settings = await readSettings(argv, index);
  assert.deepEqual(settings.get("api-key")!.value, ["hush-1", "hush-2"]);
  assert.ok(!configTable(index, settings).includes("hush"));
});
