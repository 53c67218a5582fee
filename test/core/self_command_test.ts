import assert from "node:assert/strict";
import { selfCommand } from "../../src/core/self_command.ts";

Deno.test("from source, this program is deno run of the main module", () => {
  assert.deepEqual(selfCommand(), [Deno.execPath(), "run", "-A", Deno.mainModule]);
});

Deno.test("in the self-extracting form it is the executable named by the header", () => {
  Deno.env.set("LLUMNIX_SELF", "/opt/llumnix");
  try {
    assert.deepEqual(selfCommand(), ["/opt/llumnix"]);
  } finally {
    Deno.env.delete("LLUMNIX_SELF");
  }
});
