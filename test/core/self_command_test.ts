import assert from "node:assert/strict";
import { selfCommand, setExecutable, withoutMark } from "../../src/core/self_command.ts";

Deno.test("from source, this program is deno run of the main module; else the executable", () => {
  assert.deepEqual(selfCommand(), [Deno.execPath(), "run", "-A", Deno.mainModule]);
  setExecutable("/opt/llumnix");
  assert.deepEqual(selfCommand(), ["/opt/llumnix"]);
});

Deno.test("an executable that was replaced on disk is started by its name", () => {
  assert.equal(withoutMark("/opt/llumnix (deleted)"), "/opt/llumnix");
  assert.equal(withoutMark("/opt/llumnix"), "/opt/llumnix");
});
