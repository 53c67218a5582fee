/** The mutants still fit the code, and the table has each of them. `deno task nccl-mutants` runs them. */
import assert from "node:assert/strict";
import { mutants } from "./mutants.ts";

Deno.test("NCCL pair: each mutant changes one place of the code", () => {
  for (const { rule, file, from, to } of mutants) {
    const text = Deno.readTextFileSync(new URL(`../../../ffi/nccl/${file}`, import.meta.url));
    assert.equal(text.split(from).length, 2, `"${rule}": its text occurs once in ${file}`);
    assert.notEqual(from, to);
  }
});

Deno.test("NCCL pair: the table of mutants has each rule, noticed", () => {
  const table = Deno.readTextFileSync(new URL("mutants.md", import.meta.url));
  const rows = table.split("\n").filter((line) => line.startsWith("|")).slice(2)
    .map((line) => line.split("|")[1].trim());
  assert.deepEqual(rows, mutants.map(({ rule }) => rule), "run deno task nccl-mutants");
  assert.doesNotMatch(table, /not noticed/);
});
