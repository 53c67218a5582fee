import assert from "node:assert/strict";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { benchGroups } from "../../src/cli/bench/arguments.ts";
import { serveGroups } from "../../src/cli/arguments/tables.ts";
import { readCommandLine } from "../../src/cli/command_line.ts";
import { wantsHelp } from "../../src/cli/main.ts";

const index = new ArgumentIndex(serveGroups);

function read(...argv: string[]): Record<string, unknown> {
  return Object.fromEntries(readCommandLine(argv, index));
}

function refuse(argv: string[], message: string): void {
  assert.throws(() => read(...argv), { name: "UsageError", message });
}

Deno.test("a value follows its option as a word or after =", () => {
  assert.deepEqual(read("--port", "80", "--host=a=b"), { port: 80, host: "a=b" });
  assert.deepEqual(read("--model=/m odel", "--model", "x y"), { model: "x y" });
});

Deno.test("a value with a space may begin with a dash, as in argparse", () => {
  assert.deepEqual(read("--chat-template", "-a b", "--port", "1"), {
    "chat-template": "-a b",
    "port": 1,
  });
  assert.deepEqual(read("--host", "a", "--model=x y"), { host: "a", model: "x y" });
  refuse(["--prot=a b"], "unknown option --prot; did you mean --port?");
});

Deno.test("an option whose name begins with no- is an option, and no negation of another", () => {
  const bench = new ArgumentIndex(benchGroups);
  const given = (...argv: string[]) => Object.fromEntries(readCommandLine(argv, bench));
  assert.deepEqual(given("--no-oversample"), { "no-oversample": true });
  assert.deepEqual(given("--no-oversample=false"), { "no-oversample": false });
  assert.throws(() => given("--no-oversample=maybe"), {
    name: "UsageError",
    message: "--no-oversample maybe: expected true, false, 1 or 0",
  });
  assert.throws(() => given("--oversample"), /unknown option --oversample/);
});

Deno.test("what is not given is not there", () => assert.deepEqual(read(), {}));

Deno.test("short names of several letters", () => {
  const parallel = {
    "tensor-parallel-size": 2,
    "pipeline-parallel-size": 3,
    "quantization": "awq",
  };
  assert.deepEqual(read("-tp", "2", "-pp=3", "-q", "awq"), parallel);
  refuse(["-tpx", "2"], "unknown option -tpx; did you mean -tp?");
});

Deno.test("underscores stand for dashes in names only", () => {
  assert.deepEqual(read("--max_model_len", "8", "--log_filename=a_b"), {
    "max-model-len": 8,
    "log-filename": "a_b",
  });
});

Deno.test("another name sets the same argument", () => {
  assert.deepEqual(read("--max-context-len-to-capture", "9"), { "max-seq-len-to-capture": 9 });
});

Deno.test("flags take no word, and a value after = alone", () => {
  assert.deepEqual(read("--enable-migration", "--enforce-eager=false"), {
    "enable-migration": true,
    "enforce-eager": false,
  });
  refuse(
    ["--enable-migration", "true"],
    "unexpected argument: true (write --enable-migration=true: a flag takes no word after it)",
  );
  refuse(
    ["--enable-migration=maybe"],
    "--enable-migration maybe: expected true, false, 1 or 0",
  );
});

Deno.test("--enable-defrag takes true, false, 1, 0; alone it means true", () => {
  const spellings = { true: true, 1: true, True: true, false: false, 0: false };
  for (const [word, value] of Object.entries(spellings)) {
    assert.deepEqual(read("--enable-defrag", word), { "enable-defrag": value });
    assert.deepEqual(read(`--enable-defrag=${word}`), { "enable-defrag": value });
  }
  assert.deepEqual(read("--enable-defrag"), { "enable-defrag": true });
  assert.deepEqual(read("--enable-defrag", "--seed", "1"), { "enable-defrag": true, "seed": 1 });
  refuse(
    ["--enable-defrag", "maybe"],
    "--enable-defrag maybe: expected true, false, 1 or 0",
  );
});

Deno.test("--served-model-name takes several", () => {
  const names = { "served-model-name": ["a", "b"] };
  assert.deepEqual(read("--served-model-name", "a", "b"), names);
  assert.deepEqual(read("--served-model-name", "a", "b", "--seed=1"), { ...names, seed: 1 });
  assert.deepEqual(read("--served-model-name=c", "--served-model-name", "a", "b"), names);
  refuse(
    ["--served-model-name", "--seed=1"],
    "--served-model-name: expected a value (write --served-model-name=VALUE if it begins with a " +
      "dash)",
  );
});

Deno.test("the last of a repeated option wins", () => {
  assert.deepEqual(read("--seed", "1", "--seed=2", "--seed", "3"), { seed: 3 });
  assert.deepEqual(read("--model", "a", "--model", ""), { model: "" });
});

Deno.test("numbers below zero are values", () => {
  refuse(["--seed", "-5"], "--seed -5: expected an integer of at least 0");
  assert.deepEqual(read("--image-token-id", "-1", "--migrate-out-threshold", "-.5e1"), {
    "image-token-id": -1,
    "migrate-out-threshold": -5,
  });
});

Deno.test("empty values", () => {
  const empty = { "migration-backend-transfer-type": "" };
  assert.deepEqual(read("--migration-backend-transfer-type", ""), empty);
  assert.deepEqual(read("--migration-backend-transfer-type="), empty);
  assert.deepEqual(read("--profiling-result-file-path=", "--seed=1"), {
    "profiling-result-file-path": "",
    "seed": 1,
  });
  refuse(
    ["--served-model-name="],
    '--served-model-name "": expected one value or several, none of them empty',
  );
});

Deno.test("unknown options and stray words", () => {
  refuse(["--prot", "1"], "unknown option --prot; did you mean --port?");
  refuse(
    ["--enable-migrations"],
    "unknown option --enable-migrations; did you mean --enable-migration?",
  );
  refuse(["--help=foo"], "--help takes no value");
  refuse(["--zzzzzzzzzz=1"], "unknown option --zzzzzzzzzz");
  refuse(["--__proto__", "1"], "unknown option --__proto__");
  refuse(["model dir"], 'unexpected argument: "model dir" (options begin with --)');
  refuse(["--", "--seed"], "unexpected argument: -- (options begin with --)");
  refuse(["-"], "unexpected argument: - (options begin with --)");
});

Deno.test("a missing value", () => {
  const message = "--port: expected a value (write --port=VALUE if it begins with a dash)";
  refuse(["--port"], message);
  refuse(["--port", "--host", "x"], message);
});

Deno.test("values are checked with the option's full name", () => {
  refuse(["--block-size", "7"], "--block-size 7: expected one of 8, 16, 32");
  refuse(["-tp", "two"], "--tensor-parallel-size two: expected an integer from 1 to 64");
  refuse(
    ["--dispatch-policy=robin"],
    "--dispatch-policy robin: expected one of balanced, load, queue, rr",
  );
});

Deno.test("help is wanted wherever it stands, but not after --", () => {
  assert.ok(wantsHelp(["--port", "x", "-h"]));
  assert.ok(wantsHelp(["--help"]));
  assert.ok(!wantsHelp(["--", "--help"]));
});
