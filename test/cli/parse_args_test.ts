import { parseArgs } from "@std/cli/parse-args";
import assert from "node:assert/strict";

// The real @std/cli 1.0.28 passes these tests too, without the stand-in.

Deno.test("parseArgs: values, flags, words and numbers", () => {
  const parsed = parseArgs(["--name", "007", "--n=3", "--flag", "word", "12"], {
    string: ["name"],
    boolean: ["flag", "other"],
  });
  assert.deepEqual(parsed, { _: ["word", 12], name: "007", n: 3, flag: true, other: false });
});

Deno.test("parseArgs: the last value wins unless collected", () => {
  const options = { string: ["a", "b", "c"] as const, collect: ["b", "c"] as const };
  const parsed = parseArgs(["--a=1", "--b=1", "--a=2", "--b=2"], options);
  assert.deepEqual(parsed, { _: [], a: "2", b: ["1", "2"], c: [] });
});

Deno.test("parseArgs: text options without a value are empty", () => {
  const parsed = parseArgs(["--a", "--b", "-5", "--c="], { string: ["a", "b", "c"] });
  assert.deepEqual(parsed, { _: [], a: "", b: "", 5: true, c: "" });
});

Deno.test("parseArgs: the value ends the line and may hold anything", () => {
  const parsed = parseArgs(["--a=x=y z", "--b=-1", "--c=two\nlines"], { string: ["a", "b", "c"] });
  assert.deepEqual(parsed, { _: [], a: "x=y z", b: "-1", c: "two\nlines" });
});

Deno.test("parseArgs: flags take true and false", () => {
  const parsed = parseArgs(["--a", "false", "--b=false", "--c=x", "--d", "x"], {
    boolean: ["a", "b", "c", "d"],
  });
  assert.deepEqual(parsed, { _: ["x"], a: false, b: false, c: true, d: true });
});

Deno.test("parseArgs: aliases and defaults", () => {
  const parsed = parseArgs(["-o", "file"], {
    string: ["out", "size"],
    alias: { out: "o" },
    default: { size: 4, out: "none" },
  });
  assert.deepEqual(parsed, { _: [], out: "file", o: "file", size: 4 });
});

Deno.test("parseArgs: -- and stopEarly", () => {
  assert.deepEqual(parseArgs(["a", "--", "--b"]), { _: ["a", "--b"] });
  assert.deepEqual(parseArgs(["a", "--", "--b"], { "--": true }), { _: ["a"], "--": ["--b"] });
  assert.deepEqual(parseArgs(["--a=1", "run", "--b"], { stopEarly: true }), {
    _: ["run", "--b"],
    a: 1,
  });
});

Deno.test("parseArgs: unknown sees what is declared nowhere and may drop it", () => {
  const seen: unknown[] = [];
  const parsed = parseArgs(["--known", "1", "--other=2", "word"], {
    string: ["known"],
    unknown: (arg, key, value) => {
      seen.push([arg, key, value]);
      return false;
    },
  });
  assert.deepEqual(parsed, { _: [], known: "1" });
  assert.deepEqual(seen, [["--other=2", "other", "2"], ["word", undefined, undefined]]);
});
