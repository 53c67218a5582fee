import assert from "node:assert/strict";
import { UsageError } from "../../../../src/core/errors.ts";
import { thisProcess } from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import {
  NamingDirectory,
  type NamingEntry,
} from "../../../../src/kv/transfer/kvtransfer/naming.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";

const here = thisProcess();

function entryOf(instanceId: string, changes: Partial<NamingEntry["process"]> = {}): NamingEntry {
  return {
    instanceId,
    generation: "g",
    model: "m",
    process: { ...here, ...changes },
    ucx: { workerAddress: "0a1b", key: "ff" },
    pool: { memory: "host", layout: suiteLayout, numBlocks: 24, address: "0x7f0012345000" },
  };
}

function test(name: string, body: (path: string) => void | Promise<void>): void {
  Deno.test(`naming directory: ${name}`, async () => {
    const path = Deno.makeTempDirSync();
    try {
      await body(path);
    } finally {
      Deno.removeSync(path, { recursive: true });
    }
  });
}

function names(path: string): string[] {
  return [...Deno.readDirSync(path)].map(({ name }) => name).sort();
}

test("an entry is read as it was written, by its generation, until it is removed", (path) => {
  const naming = NamingDirectory.open(`file:${path}/new/directory/`);
  assert.equal(Deno.statSync(naming.path).mode! & 0o777, 0o700);
  for (const instanceId of ["instance-0", "../a/b", "..", ".x"]) {
    const entry = entryOf(instanceId);
    naming.write(entry);
    assert.deepEqual(names(naming.path), [`${encodeURIComponent(instanceId)}.g.json`]);
    assert.equal(Deno.statSync(`${naming.path}/${names(naming.path)[0]}`).mode! & 0o777, 0o600);
    assert.deepEqual(naming.read(entry), entry);
    assert.equal(naming.read({ instanceId, generation: "h" }), null);
    naming.remove(entry);
    naming.remove(entry);
    assert.equal(naming.read(entry), null);
  }
  assert.deepEqual(names(naming.path), []);
});

test("what is no entry is not read", (path) => {
  const naming = NamingDirectory.open(`file:${path}`);
  const entry = entryOf("a");
  const pool = entry.pool;
  const others = ["", "{", "null", '{"instanceId":"a"}', "x".repeat(1 << 20)];
  const wrong = [{ ...pool, address: "12" }, { ...pool, numBlocks: -1 }, {
    ...pool,
    memory: "disk",
  }];
  others.push(...wrong.map((pool) => JSON.stringify({ ...entry, pool })));
  others.push(JSON.stringify({ ...entry, generation: "other" }));
  for (const content of others) {
    Deno.writeTextFileSync(`${path}/a.g.json`, content);
    assert.equal(naming.read(entry), null, content.slice(0, 99));
  }
});

test("a directory that others can open, a file, a link and an odd URL are refused", (path) => {
  const refuses = (url: string, message: RegExp) =>
    assert.throws(() => NamingDirectory.open(url), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, message);
      assert.match(error.message, /--migration-backend-kvtransfer-naming-url/);
      return true;
    });
  Deno.mkdirSync(`${path}/open`, { mode: 0o700 });
  Deno.chmodSync(`${path}/open`, 0o750);
  refuses(`file:${path}/open`, /other users can open it; run chmod 700 \/tmp\/.*\/open/);
  Deno.writeTextFileSync(`${path}/file`, "");
  refuses(`file:${path}/file`, /it is not a directory/);
  refuses(`file:${path}/file/below`, /cannot be used/);
  Deno.symlinkSync(path, `${path}/link`);
  refuses(`file:${path}/link`, /it is not a directory/);
  for (
    const url of ["http://host/naming", "/tmp/naming", "file:///", "", "file://host/tmp/naming"]
  ) {
    refuses(url, /expected file: and a directory/);
  }
});

Deno.test({
  name: "naming directory: another user's is refused" +
    (Deno.uid() === 0 ? "" : " (skipped: only root can give a directory away)"),
  ignore: Deno.uid() !== 0,
  fn() {
    const path = Deno.makeTempDirSync();
    Deno.chownSync(path, 65534, 65534);
    assert.throws(
      () => NamingDirectory.open(`file:${path}`),
      { name: "UsageError", message: /it belongs to user 65534, and this is user 0/ },
    );
    Deno.removeSync(path);
  },
});

test("entries of ended processes and earlier starts of the host are removed, others stay", async (path) => {
  const naming = NamingDirectory.open(`file:${path}`);
  const child = new Deno.Command("sleep", { args: ["600"] }).spawn();
  const { startTicks } = processOf(child.pid);
  naming.write(entryOf("living"));
  naming.write(entryOf("child", { pid: child.pid, startTicks }));
  naming.write(entryOf("number taken over", { pid: child.pid, startTicks: startTicks + 1 }));
  naming.write(entryOf("other host", { hostname: "far", bootId: "b", pid: 1 << 22 }));
  naming.write(
    entryOf("other container", { hostname: "c", pidNamespace: "pid:[1]", pid: 1 << 22 }),
  );
  naming.write(entryOf("earlier boot", { bootId: "b" }));
  Deno.writeTextFileSync(`${path}/old.tmp`, "{");
  Deno.utimeSync(`${path}/old.tmp`, 0, 0);
  Deno.writeTextFileSync(`${path}/new.tmp`, "{");
  Deno.writeTextFileSync(`${path}/notes.txt`, "");
  assert.deepEqual(naming.removeStale(here).sort(), ["earlier boot", "number taken over"]);
  child.kill("SIGKILL");
  await child.status;
  assert.deepEqual(naming.removeStale(here), ["child"]);
  assert.deepEqual(names(path), [
    "living.g.json",
    "new.tmp",
    "notes.txt",
    "other%20container.g.json",
    "other%20host.g.json",
  ]);
});

function processOf(pid: number): { readonly startTicks: number } {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  return { startTicks: Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]) };
}

Deno.test({
  name: "naming directory: one in another user's directory is refused, and entries of others" +
    (Deno.uid() === 0 ? "" : " (skipped: only root can give a directory away)"),
  ignore: Deno.uid() !== 0,
  fn() {
    const parent = Deno.makeTempDirSync();
    const naming = NamingDirectory.open(`file:${parent}/naming`);
    naming.write(entryOf("mine"));
    assert.notEqual(naming.read(entryOf("mine")), null);
    for (const { name } of Deno.readDirSync(`${parent}/naming`)) {
      Deno.chownSync(`${parent}/naming/${name}`, 65534, 65534);
    }
    assert.equal(naming.read(entryOf("mine")), null);
    Deno.chownSync(parent, 65534, 65534);
    assert.throws(
      () => NamingDirectory.open(`file:${parent}/naming`),
      { name: "UsageError", message: /belongs to user 65534, who could exchange it/ },
    );
    Deno.removeSync(parent, { recursive: true });
  },
});
