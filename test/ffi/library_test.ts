import assert from "node:assert/strict";
import { LibraryNotFoundError, openEach, openLibrary } from "../../ffi/library.ts";
import type { LibraryName, SearchPlaces } from "../../ffi/library_search.ts";
import { compileLibrary, fakeTest } from "./fake_library.ts";

const places: SearchPlaces = {
  ...{ root: "/nowhere", loader: true },
  variable: () => undefined,
  ldconfig: () => "",
};
const symbols = { answer: { parameters: [], result: "i32" } } as const;

function library(...sonames: string[]): LibraryName {
  return { name: "libfake", sonames, variable: "LLUMNIX_FAKE", install: "Compile it." };
}

fakeTest("the first file that can be opened is taken, and stays open", async (directory) => {
  await Deno.writeTextFile(`${directory}/libfake.so.3`, "not a library");
  await compileLibrary(`${directory}/libfake.so.2`, "int other(void) { return 1; }");
  await compileLibrary(`${directory}/libfake.so.1`, "int answer(void) { return 42; }");
  const name = library("libfake.so.3", "libfake.so.2", "libfake.so.1");
  const opened = openLibrary(name, symbols, { from: directory, places });
  assert.equal(opened.path, `${directory}/libfake.so.1`);
  assert.equal(opened.symbols.answer(), 42);
  assert.equal(opened.softwareDevice, false);
  assert.equal(openLibrary(name, symbols, { from: directory, places }), opened);
  const other = { other: { parameters: [], result: "i32" } } as const;
  assert.equal(openLibrary(name, other, { from: directory, places }).symbols.other(), 1);
});

fakeTest("a failure lists each candidate with its reason, and what to do", async (directory) => {
  await Deno.writeTextFile(`${directory}/libfake.so.3`, "not a library");
  await compileLibrary(`${directory}/libfake.so.2`, "int other(void) { return 1; }");
  const name = library("libfake.so.3", "libfake.so.2", "libfake.so.1");
  assert.throws(() => openLibrary(name, symbols, { from: directory, places }), (error) => {
    assert.ok(error instanceof LibraryNotFoundError);
    assert.deepEqual(error.tried.map(({ path }) => path.slice(directory.length + 1)), [
      ...name.sonames,
    ]);
    const [text, lacking, absent] = error.tried.map(({ reason }) => reason);
    assert.match(text, /file too short|invalid ELF header/);
    assert.match(lacking, /answer/);
    assert.match(absent, /No such file/);
    assert.match(error.message, /^libfake cannot be opened\. Tried:\n/);
    assert.match(error.message, /Compile it\. .* the environment variable LLUMNIX_FAKE\.$/);
    assert.deepEqual(error.searched, []);
    return true;
  });
});

Deno.test("without an explicit place a failure says where files were searched", () => {
  assert.throws(() => openLibrary(library("libfake.so.1"), symbols, { places }), (error) => {
    assert.ok(error instanceof LibraryNotFoundError);
    assert.deepEqual(error.tried.map(({ path }) => path), ["libfake.so.1"]);
    assert.match(error.message, /Searched: ldconfig -p, .*site-packages/);
    return true;
  });
});

fakeTest("a library found under two names counts once", async (directory) => {
  await compileLibrary(`${directory}/libfake.so.1`, "int answer(void) { return 1; }");
  await Deno.symlink(`${directory}/libfake.so.1`, `${directory}/libfake.so.2`);
  await compileLibrary(`${directory}/libfake.so.3`, "int answer(void) { return 3; }");
  const name = library("libfake.so.1", "libfake.so.2", "libfake.so.3");
  const answers = [...openEach(name, symbols, { from: directory, places })]
    .map((opened) => opened.symbols.answer());
  assert.deepEqual(answers, [1, 3]);
});

fakeTest("the software device is known by its mark", async (directory) => {
  const source = "int answer(void) { return 1; } const char *llumnixSoftwareDevice(void) {}";
  await compileLibrary(`${directory}/libfake.so.1`, source);
  const name = library("libfake.so.1");
  assert.equal(openLibrary(name, symbols, { from: directory, places }).softwareDevice, true);
});

fakeTest("the software device is not taken because it is open already", async (directory) => {
  const soname = `libfake-${crypto.randomUUID()}.so.1`, name = library(soname);
  const source = "int answer(void) { return 1; } const char *llumnixSoftwareDevice(void) {}";
  await compileLibrary(`${directory}/${soname}`, source, soname);
  const variable = (key: string) => key === "LLUMNIX_FAKE" ? directory : undefined;
  assert.equal(openLibrary(name, symbols, { from: directory, places }).softwareDevice, true);
  assert.equal(
    openLibrary(name, symbols, { places: { ...places, variable } }).softwareDevice,
    true,
  );
  assert.throws(() => openLibrary(name, symbols, { places }), (error) => {
    assert.ok(error instanceof LibraryNotFoundError);
    const reason = "the software device, which only an explicit path chooses";
    assert.deepEqual(error.tried, [{ path: soname, reason }]);
    return true;
  });
});

fakeTest("a library outlives the worker that opened it", async (directory) => {
  const path = `${directory}/libfake.so.1`;
  await compileLibrary(path, "int answer(void) { return 1; }");
  const url = new URL("./library_worker.ts", import.meta.url);
  const worker = new Worker(url, { type: "module" });
  const { promise, resolve } = Promise.withResolvers<string>();
  worker.onmessage = ({ data }) => resolve(data);
  worker.postMessage(path);
  assert.equal(await promise, path);
  worker.terminate();
  // The worker's own handles are gone once its isolate is.
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.match(await Deno.readTextFile("/proc/self/maps"), new RegExp(path));
});
