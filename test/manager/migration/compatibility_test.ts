import assert from "node:assert/strict";
import { incompatibilityOf } from "../../../src/manager/migration/compatibility.ts";
import { registrationOf } from "../support.ts";

const required = { backend: "gloo", blockSize: 16 };
const fitting = { ...registrationOf("a", ""), migration: { backend: "gloo", endpoint: {} } };

Deno.test("migration compatibility: what keeps an instance out of migration names both ends", () => {
  assert.equal(incompatibilityOf(fitting, required), null);
  assert.match(
    incompatibilityOf({ ...fitting, migration: { backend: "rayrpc", endpoint: {} } }, required)!,
    /backend is rayrpc, but this service's is gloo \(--migration-backend\)/,
  );
  assert.match(
    incompatibilityOf({ ...fitting, migration: undefined }, required)!,
    /without --enable-migration.* gloo/,
  );
  const failed = { ...fitting, migration: undefined, migrationFailure: "its thread died" };
  assert.equal(incompatibilityOf(failed, required), "its thread died");
  assert.match(
    incompatibilityOf({ ...fitting, blockSize: 32 }, required)!,
    /32 tokens.* 16 \(--block/,
  );
});
