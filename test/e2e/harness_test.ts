import assert from "node:assert/strict";
import { Program, runProgram } from "./harness.ts";

/** A shell script in the program's place. */
const shell = (script: string) => ["/bin/sh", "-c", script, "program"];

Deno.test("a program gets its arguments and no environment but what is given", async () => {
  const { code, stdout, stderr } = await runProgram(["a b", "c"], {
    command: shell('echo "$# $1 $2 [$HOME$USER] $GIVEN"; ls -A >&2; exit 3'),
    env: { GIVEN: "yes" },
  });
  assert.equal(code, 3);
  assert.equal(stdout, "2 a b c [] yes\n");
  assert.equal(stderr, "", "its directory is empty");
});

Deno.test("waiting follows the log", async () => {
  await using program = new Program([], {
    command: shell('trap "echo bye; exit 5" TERM; echo up >&2; while :; do sleep 0.02; done'),
  });
  await program.waitForLog(/^up$/m);
  assert.equal((await program.stop()).code, 5);
  assert.equal(program.stdout, "bye\n");
});

Deno.test("an end before what was waited for is told with the output", async () => {
  await using program = new Program([], { command: shell("echo because >&2; exit 4") });
  await assert.rejects(
    program.waitForLog(/never/),
    /ended with code 4 before stderr had \/never\/; its last output:\nbecause/,
  );
});

Deno.test({
  name: "processes left behind are killed and reported",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const program = new Program([], {
      command: shell("sleep 1000 >/dev/null 2>&1 & exit 0"),
      lingerLimitMs: 100,
    });
    await program.end();
    assert.deepEqual(program.processes().map(({ command }) => command), ["sleep 1000"]);
    await assert.rejects(
      program[Symbol.asyncDispose](),
      /left processes behind:\n {2}\d+ sleep 1000/,
    );
    assert.deepEqual(program.processes(), []);
  },
});
