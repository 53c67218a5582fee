import assert from "node:assert/strict";
import { givenArguments } from "../../src/roles/given_arguments.ts";

const given = (text: string) => givenArguments(new Blob([text]).stream());

Deno.test("given arguments: a list, or none when the process is not needed", async () => {
  assert.deepEqual(await given('["--seed", "1"]'), ["--seed", "1"]);
  assert.deepEqual(await given("[]"), []);
  assert.equal(await given(""), null);
});

Deno.test("given arguments: anything else is refused", async () => {
  for (const text of ["--seed 1", "{}", "[1]", "null"]) {
    await assert.rejects(given(text), {
      name: "UsageError",
      message: /^--arguments-from-stdin is for processes that `llumnix serve` starts: expected/,
    });
  }
});
