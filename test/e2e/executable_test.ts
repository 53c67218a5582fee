import assert from "node:assert/strict";
import { join } from "node:path";
import config from "../../deno.json" with { type: "json" };
import { fromSource, type ProgramOptions, runProgram } from "./harness.ts";

/** "llumnix 0.1.0 (commit 1a2b3c4d5, built 2026-11-29)"; where there is no git, without the commit. */
const versionLine = new RegExp(
  `^llumnix ${RegExp.escape(config.version)} ` +
    (fromSource
      ? "\\(from source\\)\n$"
      : "\\((commit [0-9a-f]{7,40}\\+?, )?built \\d{4}-\\d\\d-\\d\\d\\)\n$"),
);

Deno.test("--version, in an empty directory with an empty environment", async () => {
  const { code, stdout, stderr } = await runProgram(["--version"]);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, versionLine);
});

Deno.test("--help lists the commands, serve --help its options", async () => {
  const help = await runProgram(["--help"]);
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^usage: llumnix .*\n[^]*^ {2}serve /m);
  const serve = await runProgram(["serve", "--help"]);
  assert.equal(serve.code, 0);
  for (const option of ["--model", "--initial-instances", "--host", "--port", "--block-size"]) {
    assert.ok(serve.stdout.includes(option), `no ${option} in serve --help`);
  }
});

Deno.test("a mistake is exit code 2 and one message without a stack", async () => {
  for (const args of [["serv"], ["serve", "--prot", "1"], ["serve", "--port", "x"]]) {
    const { code, stdout, stderr } = await runProgram(args);
    assert.equal(code, 2, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, /error: /);
    assert.doesNotMatch(stderr, /^\s+at /m);
  }
});

Deno.test("an instance that cannot start is exit code 2 and its reason, once", async () => {
  const args = ["serve", "--port", "0", "--num-gpu-blocks-override", "1"];
  const { code, stderr } = await runProgram(args);
  assert.equal(code, 2, stderr);
  assert.equal(stderr.match(/The KV cache holds 16 tokens/g)?.length, 1, stderr);
  assert.match(stderr, /error: instance-0 could not start: The KV cache .*\n$/);
});

Deno.test({
  name: "what HOME is, or holds, does not matter",
  ignore: fromSource,
  async fn() {
    const home = Deno.makeTempDirSync();
    try {
      Deno.writeTextFileSync(join(home, ".npmrc"), "registry=${NOT_SET}\n");
      for (const HOME of ["/dev/null/home", "/nonexistent", home]) {
        const { code, stdout, stderr } = await runProgram(["--version"], { env: { HOME } });
        assert.equal(code, 0, stderr);
        assert.match(stdout, versionLine);
      }
    } finally {
      Deno.removeSync(home, { recursive: true });
    }
  },
});

Deno.test({
  name: "first runs at the same moment, into an empty cache",
  ignore: fromSource,
  async fn() {
    const cache = Deno.makeTempDirSync();
    try {
      const options: ProgramOptions = { env: { XDG_CACHE_HOME: join(cache, "new") } };
      const runs = await Promise.all([1, 2].map(() => runProgram(["--version"], options)));
      for (const { stdout } of runs) assert.match(stdout, versionLine);
    } finally {
      await Deno.remove(cache, { recursive: true });
    }
  },
});
