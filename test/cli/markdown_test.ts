import assert from "node:assert/strict";
import { argumentsPage } from "../../src/cli/markdown.ts";

Deno.test("src/cli/README.md is what the tables say", async () => {
  const committed = await Deno.readTextFile(new URL("../../src/cli/README.md", import.meta.url));
  const advice = "write it anew: deno run -A mod.ts help --markdown > src/cli/README.md";
  assert.equal(committed, argumentsPage(), advice);
});
