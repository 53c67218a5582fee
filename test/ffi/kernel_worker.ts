/** A helper thread of the WASM kernels, as `mod.ts` is in the role "kernel". */
import { runKernelWorker } from "../../ffi/cpu_kernels/wasm.ts";

runKernelWorker();
