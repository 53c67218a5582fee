import assert from "node:assert/strict";
import { join } from "node:path";
import { removeOldPrograms, touchProgram } from "../../src/roles/old_programs.ts";

const DAY_MS = 24 * 3600 * 1000;
const hash = "0123456789abcdef";

Deno.test("programs that old versions unpacked go, unless a process uses them, or they are new", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const used = `llumnix-0.3.0-${hash}`, runtime = `deno-2.9.6-${hash}`;
    for (const name of [`llumnix-0.1.0-${hash}.js`, runtime, `deno-2.9.5-${hash}`, "settings"]) {
      Deno.writeTextFileSync(join(directory, name), "");
    }
    for (const name of [`llumnix-0.2.0-${hash}`, used, "unpack.aB3dE6", "deno"]) {
      Deno.mkdirSync(join(directory, name));
      Deno.writeTextFileSync(join(directory, name, "part.js"), "");
    }
    const running = [`${directory}/${runtime}\\0run\\0${directory}/${used}/llumnix.js\\0serve`];
    assert.deepEqual(removeOldPrograms(directory, running), []); // all are new
    const removed = removeOldPrograms(directory, running, Date.now() + 2 * DAY_MS);
    assert.deepEqual(removed.sort(), [
      `deno-2.9.5-${hash}`,
      `llumnix-0.1.0-${hash}.js`,
      `llumnix-0.2.0-${hash}`,
      "unpack.aB3dE6",
    ]);
    const left = [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
    assert.deepEqual(left, ["deno", runtime, used, "settings"]);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a program that runs on another host with the same home directory stays", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const program = `llumnix-0.3.0-${hash}`, runtime = `deno-2.9.6-${hash}`;
    const main = join(directory, program, "llumnix.js");
    Deno.mkdirSync(join(directory, program));
    const old = new Date(Date.now() - 3 * DAY_MS);
    for (const path of [main, join(directory, runtime)]) Deno.writeTextFileSync(path, "");
    for (const name of [program, runtime]) Deno.utimeSync(join(directory, name), old, old);
    touchProgram(join(directory, runtime), main);
    const nobody: string[] = []; // the other host's processes are not among ours
    assert.deepEqual(removeOldPrograms(directory, nobody), []);
    assert.deepEqual(
      removeOldPrograms(directory, nobody, Date.now() + 2 * DAY_MS).sort(),
      [runtime, program],
    );
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("from source nothing is removed", () => {
  assert.deepEqual(removeOldPrograms(), []);
});
