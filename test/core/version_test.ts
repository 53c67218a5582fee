import assert from "node:assert/strict";
import config from "../../deno.json" with { type: "json" };
import { fullVersion, setBuild } from "../../src/core/version.ts";

Deno.test("version: of the source, and of executables with and without a commit", () => {
  const { version } = config;
  assert.equal(fullVersion(), `${version} (from source)`);
  try {
    setBuild({ commit: "1a2b3c4d5+", date: "2026-11-29" });
    assert.equal(fullVersion(), `${version} (commit 1a2b3c4d5+, built 2026-11-29)`);
    setBuild({ commit: null, date: "2026-11-29" });
    assert.equal(fullVersion(), `${version} (built 2026-11-29)`);
  } finally {
    setBuild(null);
  }
});
