import assert from "node:assert/strict";
import { FileLock } from "../../src/core/log_claim.ts";
import { LogFile } from "../../src/core/log_file.ts";

/** A server's file and that of an instance, both looking at the file with every line. */
function withFiles(
  body: (server: LogFile, instance: LogFile, filename: string) => void,
): void {
  const folder = Deno.makeTempDirSync();
  const filename = `${folder}/server.log`;
  const options = {
    filename,
    formatter: () => "",
    backups: 1,
    onFailure: (error: Error) => assert.fail(error),
    checkIntervalMs: 0,
  };
  const server = new LogFile("INFO", { ...options, maxBytes: 100, lock: FileLock.take(filename) });
  const instance = new LogFile("INFO", { ...options, maxBytes: null, lock: null });
  server.setup();
  instance.setup();
  try {
    body(server, instance, filename);
  } finally {
    server.destroy();
    instance.destroy();
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("an instance follows the file when the server rotates it", () =>
  withFiles((server, instance, filename) => {
    server.log("a".repeat(90));
    server.log("b".repeat(90));
    instance.log("c");
    assert.equal(Deno.readTextFileSync(filename), "b".repeat(90) + "\nc\n");
    assert.equal(Deno.readTextFileSync(`${filename}.1`), "a".repeat(90) + "\n");
  }));

Deno.test("the server rotates a file that the instances have filled, and counts anew", () =>
  withFiles((server, instance, filename) => {
    server.log("a".repeat(60));
    instance.log("b".repeat(90));
    server.log("c".repeat(60));
    server.log("d");
    assert.equal(Deno.readTextFileSync(filename), "c".repeat(60) + "\nd\n");
  }));

Deno.test("a lock moves with the file's name and holds for one process at a time", () =>
  withFiles((server, _, filename) => {
    server.log("a".repeat(90));
    server.log("b".repeat(90));
    assert.equal(FileLock.take(filename), null);
    server.destroy();
    const next = FileLock.take(filename);
    assert.ok(next !== null);
    next.release();
  }));

Deno.test("a file that failed is written again after it was reopened", () => {
  const folder = Deno.makeTempDirSync();
  const filename = `${folder}/missing/server.log`;
  const failures: Error[] = [];
  const file = new LogFile("INFO", {
    filename,
    formatter: () => "",
    maxBytes: null,
    backups: 1,
    lock: null,
    onFailure: (error) => failures.push(error),
  });
  file.setup();
  file.log("lost");
  Deno.mkdirSync(`${folder}/missing`);
  file.reopen();
  file.log("kept");
  file.destroy();
  assert.equal(failures.length, 1);
  assert.equal(Deno.readTextFileSync(filename), "kept\n");
  Deno.removeSync(folder, { recursive: true });
});
