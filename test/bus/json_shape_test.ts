import assert from "node:assert/strict";
import { checkJsonShape } from "../../src/bus/json_shape.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);

Deno.test("JSON that nests too deeply, or has too many lists, is refused before it is parsed", () => {
  assert.throws(() => checkJsonShape(bytesOf("[".repeat(65))), /deeper than 64 levels/);
  assert.throws(() => checkJsonShape(bytesOf('{"a":'.repeat(65))), /deeper than 64 levels/);
  assert.throws(
    () => checkJsonShape(bytesOf(`[${"[],".repeat(4 << 20)}0]`)),
    /more than 4194304 lists and objects/,
  );
});

Deno.test("brackets in texts do not count", () => {
  checkJsonShape(bytesOf(JSON.stringify(["[".repeat(100), '\\"[['.repeat(100), "\\".repeat(3)])));
  checkJsonShape(bytesOf("[".repeat(64) + "]".repeat(64)));
});
