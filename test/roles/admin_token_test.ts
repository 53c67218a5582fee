import assert from "node:assert/strict";
import { adminToken } from "../../src/roles/admin_token.ts";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { serveGroups } from "../../src/cli/arguments/tables.ts";
import { configTable } from "../../src/cli/print_config.ts";
import { readSettings } from "../../src/cli/settings.ts";

Deno.test("the admin token comes from the option, else from the environment", () => {
  const read = (adminTokenOption: string | null) => adminToken({ adminToken: adminTokenOption });
  assert.equal(read(null), null);
  assert.equal(read("a"), "a");
  Deno.env.set("LLUMNIX_ADMIN_TOKEN", "b");
  try {
    assert.equal(read(null), "b");
    assert.equal(read("a"), "a");
    Deno.env.set("LLUMNIX_ADMIN_TOKEN", "");
    assert.throws(() => read(null), /^UsageError: LLUMNIX_ADMIN_TOKEN must be one or more visible/);
  } finally {
    Deno.env.delete("LLUMNIX_ADMIN_TOKEN");
  }
  for (const bad of ["", "two words", "schlüssel", "a\n"]) {
    assert.throws(() => read(bad), /^UsageError: --admin-token must be one or more visible/);
  }
});

Deno.test("--print-config does not show the admin token", async () => {
  const index = new ArgumentIndex(serveGroups);
  const settings = await readSettings(["--admin-token", "hush"], index);
  const table = configTable(index, settings);
  assert.ok(!table.includes("hush"));
  assert.match(table, /--admin-token +set \(not shown\) +command line/);
});
