import assert from "node:assert/strict";
import type { SearchPlaces } from "../../ffi/library_search.ts";
import { surveyLibrary } from "../../ffi/survey.ts";
import { compileLibrary, fakeTest } from "./fake_library.ts";

const versions = `
int cuDriverGetVersion(int *v) { *v = 12040; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = 13010; return 0; }
int ncclGetVersion(int *v) { *v = 23203; return 0; }
unsigned long cublasLtGetVersion() { return 130200; }
`;

fakeTest("each library is reported with its version and path", async (directory) => {
  const expected = {
    cuda: ["libcuda.so.1", "12.4"],
    cudart: ["libcudart.so.13", "13.1"],
    nccl: ["libnccl.so.2", "2.32.3"],
    cublasLt: ["libcublasLt.so.13", "13.2.0"],
  } as const;
  for (const [key, [file, version]] of Object.entries(expected)) {
    await compileLibrary(`${directory}/${file}`, versions);
    const report = surveyLibrary(key as keyof typeof expected, { from: directory });
    assert.equal(report.path, `${directory}/${file}`);
    assert.deepEqual([report.version, report.softwareDevice, report.failure], [
      ...[version, false, null],
    ]);
  }
});

fakeTest("other files of a library are listed, and a missing one says why", async (root) => {
  const none = { variable: () => undefined, ldconfig: () => "" };
  // Other tests of this process, or the host, may have a real one for the loader to find.
  const places: SearchPlaces = { root, loader: false, ...none };
  for (const version of ["12.9", "13.0"]) {
    await Deno.mkdir(`${root}/usr/local/cuda-${version}/lib64`, { recursive: true });
    const file = `libcudart.so.${version.split(".")[0]}`;
    await compileLibrary(`${root}/usr/local/cuda-${version}/lib64/${file}`, versions);
  }
  const { path, others } = surveyLibrary("cudart", { places });
  assert.equal(path, `${root}/usr/local/cuda-13.0/lib64/libcudart.so.13`);
  assert.deepEqual(others, [`${root}/usr/local/cuda-12.9/lib64/libcudart.so.12`]);
  const missing = surveyLibrary("nccl", { places });
  assert.deepEqual([missing.path, missing.version, missing.others], [null, null, []]);
  assert.match(missing.failure!, /^libnccl cannot be opened\. Tried:\nSearched: /);
  assert.ok(missing.failure!.includes(`${root}/usr/local/cuda-13.0/lib64`), "what was searched");
});

fakeTest("a library that does not tell its version has none", async (directory) => {
  const source = "int ncclGetVersion(int *v) { return 1; }";
  await compileLibrary(`${directory}/libnccl.so.2`, source);
  const { version, failure } = surveyLibrary("nccl", { from: directory });
  assert.deepEqual([version, failure], [null, null]);
});
