/** Libraries of versions that the bindings are not written for. */
import assert from "node:assert/strict";
import { LibraryVersionError } from "../../ffi/library.ts";
import { Nccl } from "../../ffi/nccl/nccl.ts";
import { ncclSymbols } from "../../ffi/nccl/symbols.ts";
import { ucpSymbols } from "../../ffi/ucx/symbols.ts";
import { Ucx } from "../../ffi/ucx/ucx.ts";
import { compileLibrary, fakeSource, fakeTest } from "./fake_library.ts";

async function nccl(path: string, version: number): Promise<void> {
  const own = `int ncclGetVersion(int *v) { *v = ${version}; return 0; }`;
  await compileLibrary(path, fakeSource([ncclSymbols], own));
}

async function ucp(path: string, major: number, minor: number): Promise<void> {
  const own = `void ucp_get_version(unsigned *a, unsigned *b, unsigned *c) {
  *a = ${major}; *b = ${minor}; *c = 1;
}`;
  await compileLibrary(path, fakeSource([ucpSymbols], own));
}

fakeTest("NCCL before 2.18.3 is refused with both versions", async (directory) => {
  await nccl(`${directory}/old.so`, 21605);
  assert.throws(() => Nccl.open({ from: `${directory}/old.so` }), (error) => {
    assert.ok(error instanceof LibraryVersionError);
    assert.deepEqual([error.version, error.needed], ["2.16.5", "2.18.3 or later"]);
    assert.match(
      error.message,
      /^libnccl 2\.16\.5 at \S+old\.so cannot be used: .* 2\.18\.3 or later\. Install /,
    );
    return true;
  });
  await nccl(`${directory}/new.so`, 21803);
  assert.equal(Nccl.open({ from: `${directory}/new.so` }).versionText, "2.18.3");
});

fakeTest("UCX before 1.13, or of another major version, is refused", async (directory) => {
  for (const [major, minor] of [[1, 12], [2, 20]]) {
    const path = `${directory}/${major}.${minor}.so`;
    await ucp(path, major, minor);
    assert.throws(() => Ucx.open({ from: path }), (error) => {
      assert.ok(error instanceof LibraryVersionError);
      assert.deepEqual([error.version, error.needed], [
        `${major}.${minor}.1`,
        "1.13 or a later 1.x",
      ]);
      return true;
    });
  }
  await ucp(`${directory}/new.so`, 1, 13);
  assert.equal(Ucx.open({ from: `${directory}/new.so` }).version, "1.13.1");
});
