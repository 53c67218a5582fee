import assert from "node:assert/strict";
import { textTable } from "../../src/report/text_table.ts";

Deno.test("a table is as wide as its widest cells", () => {
  const table = textTable(["", "a", "long name"], [["row", "1", "2"], ["x", "100", ""]]);
  assert.equal(
    table,
    [
      "       a  long name",
      "---  ---  ---------",
      "row    1          2",
      "x    100",
    ].join("\n"),
  );
});
