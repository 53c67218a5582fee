/** What follows a run with few failures. */
import assert from "node:assert/strict";
import { closingLines, judge, type TestRun } from "../../scripts/second_run.ts";
import { readFailures } from "../../scripts/test_failures.ts";
import { readSummary } from "../../scripts/test_summary.ts";

/** Runs `deno test` in a directory of these files. */
async function withFiles(
  files: Readonly<Record<string, string>>,
  body: (run: (...names: string[]) => Promise<TestRun>) => Promise<void>,
): Promise<void> {
  const cwd = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      Deno.writeTextFileSync(`${cwd}/${name}`, text);
    }
    await body(async (...names) => {
      const args = ["test", "-A", "--no-check", "--no-config", ...names];
      const output = await new Deno.Command(Deno.execPath(), { args, cwd, stdin: "null" }).output();
      const stdout = new TextDecoder().decode(output.stdout);
      return { counts: readSummary(stdout), code: output.code, stdout };
    });
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
}

const helper = "export const test = (name, fn) => Deno.test(name, fn);";
const mixed = `import { test } from "./helper.js";
Deno.test("passes", () => {});
test("of a helper, with => and ... in it", () => { throw new TypeError("two\\nlines"); });
Deno.test("prints and has steps", async (t) => {
  console.log("not a test ... FAILED (1ms)");
  await t.step("inner", () => { throw new Error("inner"); });
});
Deno.test({ name: "skipped", ignore: true, fn() {} });`;
const uncaught = `Deno.test("first", async () => {
  setTimeout(() => { throw new Error("later"); }, 0);
  await new Promise((resolve) => setTimeout(resolve, 10_000));
});
Deno.test("second", () => {});`;

Deno.test("test failures: each is told with its file, its place and its error", () =>
  withFiles({ "helper.js": helper, "a_test.js": mixed, "b_test.js": uncaught }, async (run) => {
    const { counts, stdout } = await run();
    const failures = readFailures(stdout, counts!.failed)!;
    assert.deepEqual(failures.map(({ name, file, count }) => [name, file, count]), [
      ["of a helper, with => and ... in it", "./a_test.js", 1],
      ["prints and has steps", "./a_test.js", 1],
      ["./b_test.js (uncaught error)", "./b_test.js", 3],
    ]);
    assert.equal(failures[0].place, "./helper.js:1:40");
    assert.match(failures[0].message, /^error: TypeError: two\nlines/);
    assert.match(failures[1].message, /Error: inner/);
    assert.match(failures[2].message, /Error: later/);
    assert.equal(
      readFailures(stdout, counts!.failed + 1),
      null,
      "another number is not understood",
    );
  }));

Deno.test("test failures: what a child process writes in between does not hide them", () => {
  const stdout = "running 1 test from ./test/a_test.ts\nname ...a child writes\n FAILED (3ms)\n" +
    "\n ERRORS \n\nname => ./test/a_test.ts:1:6\nerror: Error: wrong\n    at x\n\n FAILURES \n";
  assert.deepEqual(readFailures(stdout, 1), [{
    name: "name",
    file: "./test/a_test.ts",
    count: 1,
    place: "./test/a_test.ts:1:6",
    message: "error: Error: wrong",
  }]);
});

/** Fails the first time. */
const unsteady = `Deno.test("unsteady", () => {
  try { Deno.statSync("seen"); } catch { Deno.mkdirSync("seen"); throw new Error("disturbed"); }
});
Deno.test("steady", () => {});`;

Deno.test("second run: a test that passes alone counts as passed, and is named with its error", () =>
  withFiles({ "a_test.js": unsteady, "b_test.js": "Deno.test('fine', () => {});" }, async (run) => {
    const alone: string[] = [];
    const verdict = await judge([await run()], (file) => (alone.push(file), run(file)));
    assert.deepEqual(alone, ["./a_test.js"]);
    const lines = closingLines(verdict);
    assert.deepEqual(lines.slice(0, 2), [
      "failed beside other tests and passed alone: unsteady (./a_test.js:1:6)",
      "    error: Error: disturbed",
    ]);
    assert.equal(lines.at(-1), "ok | 3 passed | 0 failed | 0 ignored | 1 unsteady");
  }));

Deno.test("second run: a test that fails twice has failed, beside one that is unsteady", () => {
  const text = `${unsteady}\nDeno.test("broken", () => { throw new Error("always"); });`;
  return withFiles({ "a_test.js": text }, async (run) => {
    const verdict = await judge([await run()], run);
    assert.equal(
      closingLines(verdict).at(-1),
      "FAILED | 2 passed | 1 failed | 0 ignored | 1 unsteady",
    );
    assert.deepEqual(verdict.unsteady.map(({ name }) => name), ["unsteady"]);
  });
});

const many = (count: number) =>
  Array.from({ length: count }, (_, i) => `Deno.test("t${i}", () => { throw 1; });`).join("\n");

Deno.test("second run: there is none for more than three failures, or a run without an end", () =>
  withFiles({ "a_test.js": many(3), "b_test.js": many(1) }, async (run) => {
    const never = () => assert.fail("a second run");
    const all = await judge([await run()], never);
    assert.equal(closingLines(all).at(-1), "FAILED | 0 passed | 4 failed | 0 ignored");
    const killed: TestRun = { counts: null, code: 137, stdout: "running 1 test" };
    const one = await judge([await run("b_test.js"), killed], never);
    assert.equal(closingLines(one).at(-1), "FAILED | 0 passed | 2 failed | 0 ignored");
  }));

Deno.test("second run: an error that cancelled tests is one failure", () =>
  withFiles({ "a_test.js": uncaught }, async (run) => {
    const fine: TestRun = { counts: { passed: 2, failed: 0, ignored: 0 }, code: 0, stdout: "" };
    const verdict = await judge([await run()], () => Promise.resolve(fine));
    assert.equal(closingLines(verdict).at(-1), "ok | 2 passed | 0 failed | 0 ignored | 1 unsteady");
  }));

Deno.test("the closing line is what .ci/run reads", async () => {
  const script = await Deno.readTextFile(new URL("../../.ci/run", import.meta.url));
  const pattern = /=~ (\S+(?:\\ \S+)*) \]\]/.exec(script)![1].replaceAll("\\ ", " ");
  const closing = closingLines({ passed: 10, failed: 0, ignored: 1, unsteady: [] }).at(-1)!;
  for (const line of [closing, `${closing} | 2 unsteady`]) {
    assert.match(line, /^(ok|FAILED) \| [0-9]+ passed/);
    assert.deepEqual(new RegExp(pattern).exec(line)?.slice(1), ["10", "0"]);
  }
});
