import assert from "node:assert/strict";
import {
  type Argument,
  boolean,
  choice,
  integer,
  json,
  list,
  number,
  size,
  text,
  type Value,
} from "../../../src/cli/arguments/argument.ts";
import { parseValue, shown } from "../../../src/cli/arguments/values.ts";

const help = "For the test.";

function parse(argument: Argument, raw: unknown): Value {
  return parseValue(argument, raw, (value) => `--x ${value}`);
}

function refuse(argument: Argument, raw: unknown, message: string): void {
  assert.throws(() => parse(argument, raw), { name: "UsageError", message });
}

Deno.test("integers", () => {
  const port = integer({ default: 1, min: 0, max: 65535, help });
  assert.equal(parse(port, "8080"), 8080);
  assert.equal(parse(port, 8080), 8080);
  for (const bad of ["70000", "-1", "1.5", "0x10", "ten", "1e3", "9007199254740993", true, [1]]) {
    refuse(port, bad, `--x ${shown(bad)}: expected an integer from 0 to 65535`);
  }
  refuse(port, "", '--x "": expected an integer from 0 to 65535');
  assert.equal(parse(integer({ default: 0, help }), "-3"), -3);
});

Deno.test("numbers", () => {
  const fraction = number({ default: 1, above: 0, max: 1, help });
  for (const good of ["0.5", ".5", "5e-1", 0.5]) assert.equal(parse(fraction, good), 0.5);
  for (const bad of ["0", "1.01", "NaN", "Infinity", "-0.5", ".", "1,5"]) {
    refuse(fraction, bad, `--x ${bad}: expected a number greater than 0 and at most 1`);
  }
});

Deno.test("choices name what there is and the nearest", () => {
  const policy = choice({ choices: ["balanced", "load"], default: "load", help });
  assert.equal(parse(policy, "balanced"), "balanced");
  refuse(policy, "laod", "--x laod: expected one of balanced, load; did you mean load?");
  refuse(policy, "LOAD", "--x LOAD: expected one of balanced, load; did you mean load?");
  refuse(policy, 3, "--x 3: expected one of balanced, load");
  const blocks = choice({ choices: [8, 16, 32], default: 16, help });
  assert.equal(parse(blocks, "32"), 32);
  refuse(blocks, "7", "--x 7: expected one of 8, 16, 32");
});

Deno.test("booleans", () => {
  const defrag = boolean({ default: false, help });
  for (const yes of ["true", "1", "True", 1, true]) assert.equal(parse(defrag, yes), true);
  for (const no of ["false", "0", "False", 0, false]) assert.equal(parse(defrag, no), false);
  refuse(defrag, "maybe", "--x maybe: expected true, false, 1 or 0");
});

Deno.test("sizes", () => {
  const body = size({ default: 1, min: 1, help });
  const good = { "4096": 4096, "4MiB": 4194304, "4 MB": 4000000, "1.5kib": 1536, "7B": 7 };
  for (const [written, bytes] of Object.entries(good)) assert.equal(parse(body, written), bytes);
  assert.equal(parse(body, 512), 512);
  for (const bad of ["4X", "MiB", "-1", "0.3B", "4constructor"]) {
    refuse(body, bad, `--x ${bad}: expected a number of bytes, such as 1048576 or 4MiB`);
  }
  refuse(body, "0", "--x 0: expected a size of at least 1");
});

Deno.test("lists, JSON and text", () => {
  const names = list({ default: null, help });
  assert.deepEqual(parse(names, ["a", "b"]), ["a", "b"]);
  assert.deepEqual(parse(names, "a"), ["a"]);
  refuse(names, ["a", ""], '--x a "": expected one value or several, none of them empty');
  const extra = json({ default: null, help });
  assert.equal(parse(extra, '{"a": 1}'), '{"a": 1}');
  assert.equal(parse(extra, { a: 1 }), '{"a":1}');
  refuse(extra, "{a}", `--x {a}: expected JSON; quote it for the shell, as in '["*"]'`);
  const revision = text({ default: null, help });
  assert.equal(parse(revision, "1e3"), "1e3");
  refuse(revision, 1000, "--x 1000: expected text: put it in quotes");
});

Deno.test("null is for arguments that can be unset", () => {
  assert.equal(parse(integer({ default: null, help }), null), null);
  refuse(integer({ default: 1, help }), null, "--x null: expected an integer");
});
