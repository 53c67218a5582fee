import assert from "node:assert/strict";
import { UsageError } from "../../src/core/errors.ts";
import { makeRuntimeDirectory } from "../../src/roles/runtime_directory.ts";

const env = (variables: Record<string, string>) => new Map(Object.entries(variables));

function withTemporary(body: (directory: string) => void): void {
  const directory = Deno.makeTempDirSync();
  try {
    body(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("the runtime directory is private, and removed with what is in it", () =>
  withTemporary((parent) => {
    const directory = makeRuntimeDirectory(env({ XDG_RUNTIME_DIR: parent + "/" }));
    assert.ok(directory.path.startsWith(`${parent}/llumnix-${Deno.pid}-`));
    assert.equal(Deno.statSync(directory.path).mode! & 0o777, 0o700);
    Deno.writeTextFileSync(`${directory.path}/manager.sock`, "");
    directory.remove();
    directory.remove();
    assert.deepEqual([...Deno.readDirSync(parent)], []);
  }));

Deno.test("a parent that is missing or too long for sockets is passed over", () =>
  withTemporary((parent) => {
    const long = `${parent}/${"x".repeat(80)}`;
    Deno.mkdirSync(long);
    for (const unusable of [long, `${parent}/missing`]) {
      const directory = makeRuntimeDirectory(env({ XDG_RUNTIME_DIR: unusable, TMPDIR: parent }));
      assert.ok(directory.path.startsWith(`${parent}/llumnix-`));
      directory.remove();
    }
  }));

Deno.test("without any place for sockets the error says what to set", () => {
  const missing = "/nonexistent/place";
  const mkdirSync = Deno.mkdirSync;
  Deno.mkdirSync = (path) => {
    throw new Deno.errors.PermissionDenied(`mkdir ${path}`);
  };
  try {
    assert.throws(
      () => makeRuntimeDirectory(env({ XDG_RUNTIME_DIR: missing })),
      (error) => error instanceof UsageError && /Set XDG_RUNTIME_DIR/.test(error.message),
    );
  } finally {
    Deno.mkdirSync = mkdirSync;
  }
});
