/** `llumnix demo` from its first line to its table. */
import assert from "node:assert/strict";
import { runProgram } from "./harness.ts";

Deno.test("the demo loses no request, and its answers are the same with and without migration", async () => {
  const { code, stdout, stderr } = await runProgram(["demo", "--seconds", "2", "--rounds", "1"]);
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^The page, with migration: +http:\/\/127\.0\.0\.1:\d+\/$/m);
  assert.equal(
    stdout.match(/^ +with(out)? migration: killed instance-\d with SIGKILL/gm)?.length,
    2,
    stdout,
  );
  const [, requests] = /^requests +(\d+) +\1$/m.exec(stdout) ?? [];
  assert.ok(Number(requests) > 10, stdout);
  assert.match(stdout, /^lost +0 +0$/m);
  assert.match(stdout, /^P99 time to first token +[\d.]+ m?s +[\d.]+ m?s$/m);
  assert.match(stdout, new RegExp(`^All ${requests} answers are the same`, "m"));
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(stdout + stderr, /\x1b/, "no escapes where there is no terminal");
});

Deno.test("the demo refuses words that it does not know, and a port that is taken", async () => {
  const unknown = await runProgram(["demo", "--foo"]);
  assert.deepEqual([unknown.code, unknown.stdout], [2, ""]);
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { code, stderr } = await runProgram(["demo", "--port", String(taken.addr.port)]);
  assert.equal(code, 2, stderr);
  assert.match(stderr, /llumnix demo: error: .*port/s);
});
