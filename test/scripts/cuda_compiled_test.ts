/** The committed PTX, machine code and table of the CUDA kernels are what the pinned compiler makes of the sources. */
import assert from "node:assert/strict";
import { compareWithCompiled } from "../../scripts/build_cuda_kernels.ts";
import { type CudaCompiler, fetchCompiler, NoCompilerError } from "../../scripts/cuda_compiler.ts";
import { isLongRun, longTest } from "../long.ts";

const directory = isLongRun ? await Deno.makeTempDir({ prefix: "cuda-compiler-" }) : null;
addEventListener("unload", () => directory && Deno.removeSync(directory, { recursive: true }));

/** Why there is no compiler; its download is counted as a test that was skipped. */
let missing: string | null = null;
let compiler: CudaCompiler | null = null;
try {
  if (directory !== null) compiler = await fetchCompiler(directory);
} catch (error) {
  if (!(error instanceof NoCompilerError)) throw error;
  missing = error.message;
}

longTest({
  name: "CUDA kernels: the committed products are what nvcc makes of the committed sources" +
    (missing === null ? "" : ` (skipped: no compiler, ${missing})`),
  ignore: missing !== null,
  async fn() {
    assert.deepEqual(await compareWithCompiled(compiler!), []);
  },
});
