import assert from "node:assert/strict";
import { readSummary } from "../../scripts/test_summary.ts";

Deno.test("test summary: the last closing line counts, with colours and steps", () => {
  const output = "x ... ok (1ms)\nok | 1 passed | 0 failed (2s)\n" +
    "\n\x1b[31mFAILED\x1b[0m | 2849 passed (73 steps) | 1 failed (2 steps) | 105 ignored \x1b[38;5;245m(12m19s)\x1b[0m\n";
  assert.deepEqual(readSummary(output), { passed: 2849, failed: 1, ignored: 105 });
  assert.deepEqual(readSummary("ok | 3 passed | 0 failed (2s)"), {
    passed: 3,
    failed: 0,
    ignored: 0,
  });
  assert.equal(readSummary("error: Module not found\n"), null);
});
