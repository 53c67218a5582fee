import assert from "node:assert/strict";
import { settingsDifference } from "../../src/core/served_settings.ts";

const settings = { model: "m", dtype: "float32", maxModelLen: 100 };

Deno.test("served settings: the first difference is told with both values and the option", () => {
  assert.equal(settingsDifference(settings, { ...settings }, "a", "b"), null);
  assert.equal(
    settingsDifference(settings, { ...settings, dtype: "float16", maxModelLen: 7 }, "a", "b"),
    "a has --dtype float32, and b float16",
  );
  assert.equal(
    settingsDifference(settings, { ...settings, maxModelLen: 7 }, "a", "b"),
    "a has --max-model-len 100, and b 7",
  );
});
