import assert from "node:assert/strict";

async function run(how: string) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL("./_defective_role.ts", import.meta.url).pathname, how],
  }).output();
  const [pid, ...rest] = new TextDecoder().decode(stdout).trim().split("\n");
  return { code, pid: Number(pid), rest, log: new TextDecoder().decode(stderr) };
}

for (const how of ["timer", "rejection", "awaited"]) {
  Deno.test(`a defect (${how}) ends a role as kill -9 does, with exit code 1 and its stack in the log`, async () => {
    const { code, pid, rest, log } = await run(how);
    assert.equal(code, 1);
    assert.deepEqual(rest, [], "nothing was disposed of");
    assert.match(
      log,
      / ERROR role\/test: ending after a defect error="TypeError: x is undefined\\n +at /,
    );
    Deno.kill(pid, "SIGKILL"); // its child is still there
  });
}

Deno.test("a deliberate error does not end a role", async () => {
  const { code, log } = await run("deliberate");
  assert.equal(code, 7);
  assert.equal(log, "");
});
