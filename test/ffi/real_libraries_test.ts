/** What the real libraries say on a host without a driver: versions, ids, texts, refusals. */
import assert from "node:assert/strict";
import { cublasConstants as cublas } from "../../ffi/cublaslt/cublaslt.ts";
import { cublasLtSymbols } from "../../ffi/cublaslt/symbols.ts";
import { cudartSymbols, openCudart } from "../../ffi/cuda/cudart.ts";
import { deadContextCodes, NoDriverError } from "../../ffi/cuda/errors.ts";
import { openLibrary } from "../../ffi/library.ts";
import { libraries } from "../../ffi/library_search.ts";
import { textAt } from "../../ffi/memory.ts";
import { Nccl, NcclError } from "../../ffi/nccl/nccl.ts";
import { surveyLibrary } from "../../ffi/survey.ts";
import { hasDriver, realTest } from "./real_libraries.ts";

realTest(libraries.cudart, "libcudart knows its error codes under the names here", (from) => {
  const { symbols } = openLibrary(libraries.cudart, cudartSymbols, { from });
  const name = (code: number) => textAt(symbols.cudaGetErrorName(code));
  const text = (code: number) => textAt(symbols.cudaGetErrorString(code));
  assert.deepEqual([name(2), text(2)], ["cudaErrorMemoryAllocation", "out of memory"]);
  assert.deepEqual([name(35), name(46), name(100)], [
    ...["cudaErrorInsufficientDriver", "cudaErrorDevicesUnavailable", "cudaErrorNoDevice"],
  ]);
  const unknown = Object.values(deadContextCodes).filter((code) => /unrecognized/.test(name(code)));
  // 226 and 721 came with CUDA 12.8.
  assert.ok(unknown.every((code) => code === 226 || code === 721), unknown.join());
});

if (!hasDriver) {
  realTest(
    libraries.cudart,
    "libcudart answers 35 without a driver, which says what is missing",
    (from) => {
      assert.throws(() => openCudart({ from }), (error) => {
        assert.ok(error instanceof NoDriverError);
        assert.match(error.message, /no NVIDIA driver.*\(cudaErrorInsufficientDriver, 35\)$/);
        return true;
      });
      const { symbols } = openLibrary(libraries.cudart, cudartSymbols, { from });
      const handle = new BigUint64Array(1);
      assert.equal(symbols.malloc(handle, 1024n), 35);
      assert.equal(symbols.hostAlloc(handle, 1024n, 3), 35);
      assert.equal(symbols.streamCreate(handle, 1, 0), 35);
      assert.equal(symbols.eventCreate(handle, 2), 35);
      assert.equal(symbols.driverVersion(new Int32Array(1)), 0);
    },
  );
}

realTest(libraries.cudart, "libcudart has the version of its soname", (from) => {
  const { version, path, softwareDevice } = surveyLibrary("cudart", { from });
  assert.deepEqual([path, softwareDevice], [from, false]);
  const [, major] = /libcudart\.so\.(\d+)/.exec(from)!;
  // CUDA 11 does not tell without a driver.
  if (version !== null) assert.ok(version.startsWith(`${major}.`), version);
  else assert.equal(major, "11");
});

realTest(libraries.nccl, "libnccl gives ids of 128 bytes, no two alike", (from) => {
  const nccl = Nccl.open({ from });
  assert.ok(nccl.version >= 21803, nccl.versionText);
  assert.match(nccl.versionText, /^2\.\d+\.\d+$/);
  assert.equal(surveyLibrary("nccl", { from }).version, nccl.versionText);
  const ids = [nccl.uniqueId(), nccl.uniqueId()];
  assert.deepEqual(ids.map((id) => id.length), [128, 128]);
  assert.notDeepEqual(ids[0], ids[1]);
  nccl.groupStart();
  assert.equal(nccl.groupEnd(), "success");
});

if (!hasDriver) {
  realTest(
    libraries.nccl,
    "libnccl makes no communicator without a driver, and says why",
    (from) => {
      const nccl = Nccl.open({ from });
      assert.throws(() => nccl.initRank(2, nccl.uniqueId(), 0, { maxCtas: 4 }), (error) => {
        assert.ok(error instanceof NcclError);
        assert.deepEqual([error.call, error.code], ["ncclCommInitRankConfig", 1]);
        assert.match(error.message, /CUDA driver version is insufficient for CUDA runtime version/);
        return true;
      });
      assert.throws(() => nccl.initRank(2, new Uint8Array(127), 0), /has 128 bytes, not 127/);
    },
  );
}

realTest(
  libraries.cublasLt,
  "libcublasLt takes descriptions of products without a device",
  (from) => {
    const { symbols: blas } = openLibrary(libraries.cublasLt, cublasLtSymbols, { from });
    const made = new BigUint64Array(1);
    assert.equal(
      blas.cublasLtMatmulDescCreate(made, cublas.CUBLAS_COMPUTE_32F, cublas.CUDA_R_32F),
      0,
    );
    const description = made[0];
    const set = (attribute: number, value: Uint8Array<ArrayBuffer>) =>
      blas.cublasLtMatmulDescSetAttribute(description, attribute, value, BigInt(value.length));
    assert.equal(set(cublas.CUBLASLT_MATMUL_DESC_TRANSA, Uint8Array.of(1, 0, 0, 0)), 0);
    const invalid = set(cublas.CUBLASLT_MATMUL_DESC_TRANSA, new Uint8Array(8));
    assert.equal(textAt(blas.cublasLtGetStatusName(invalid)), "CUBLAS_STATUS_INVALID_VALUE");
    assert.equal(set(cublas.CUBLASLT_MATMUL_DESC_EPILOGUE, Uint8Array.of(4, 0, 0, 0)), 0);
    assert.equal(set(cublas.CUBLASLT_MATMUL_DESC_BIAS_POINTER, new Uint8Array(8)), 0);
    assert.equal(set(cublas.CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, Uint8Array.of(14, 0, 0, 0)), 0);
    assert.equal(
      blas.cublasLtMatrixLayoutCreate(made, cublas.CUDA_R_16BF, 4096n, 4096n, 4096n),
      0,
    );
    blas.cublasLtMatrixLayoutDestroy(made[0]);
    blas.cublasLtMatmulDescDestroy(description);
  },
);
