/** `llumnix decide` as a program. */
import assert from "node:assert/strict";
import { examples } from "../../../src/cli/decide/help.ts";

const entry = new URL("../../../mod.ts", import.meta.url).pathname;

/** Runs the program with text on its standard input. */
async function run(args: readonly string[], input = "") {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", entry, "decide", ...args],
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("decide: one answer a line, in order, from the standard input and from a file", async () => {
  const { input, answer } = examples.dispatch;
  const text = `${input}\n\n{"instances": []}\n${input}`;
  const expected = `${answer}\n{"instance_id":null}\n${answer}\n`;
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, text);
    const results = await Promise.all([
      run(["--kind", "dispatch"], text),
      run(["--kind=dispatch", "--input", "-"], text),
      run(["--kind", "dispatch", "--input", path]),
    ]);
    for (const result of results) {
      assert.deepEqual(result, { code: 0, stdout: expected, stderr: "" });
    }
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("decide: a bad line ends it with its number, after the answers before it", async () => {
  const { input, answer } = examples.load;
  const text = `${input}\n\n{"instances": [{"instance_id": "a", "total_block": 1}]}\n${input}\n`;
  assert.deepEqual(await run(["--kind", "load"], text), {
    code: 2,
    stdout: `${answer}\n`,
    stderr: "llumnix decide: error: standard input line 3: instances[0]: unknown field " +
      "total_block; did you mean total_blocks?\n",
  });
  const { code, stderr } = await run(["--kind", "load"], "{bad");
  assert.equal(code, 2);
  assert.match(stderr, /^llumnix decide: error: standard input line 1: not JSON: /);
});

Deno.test("decide: bad arguments", async () => {
  const [missing, unreadable, directory] = await Promise.all([
    run([]),
    run(["--kind", "load", "--input", "/no/such/file"]),
    run(["--kind", "load", "--input", "/"]),
  ]);
  assert.equal(directory.code, 2);
  assert.equal(directory.stderr, "llumnix decide: error: cannot read /: it is a directory\n");
  assert.equal(missing.code, 2);
  assert.match(
    missing.stderr,
    /--kind is missing: expected load, dispatch, pair, request or scale/,
  );
  assert.equal(unreadable.code, 2);
  assert.match(unreadable.stderr, /cannot read \/no\/such\/file: no such file/);
});

Deno.test("decide: options of the command line are for all lines", async () => {
  const line = '{"instances": [{"instance_id": "a", "total_blocks": 4, "used_blocks": 1}]}\n';
  const result = await run(["--kind", "load", "--load-metric", "usage_ratio"], line.repeat(2));
  const dispatch = result.stdout.trim().split("\n").map((text) =>
    JSON.parse(text).loads[0].dispatch
  );
  assert.deepEqual(dispatch, [0.25, 0.25]);
});
