import { kernelSetStates, loadCpuKernels } from "../../ffi/cpu_kernels/load.ts";
import { testKernels } from "../conformance/kernels.ts";

const createKernelWorker = () =>
  new Worker(new URL("./kernel_worker.ts", import.meta.url), { type: "module" });

for (const { set, unavailable } of kernelSetStates()) {
  const load = () => loadCpuKernels({ set, threads: 2, createKernelWorker });
  testKernels({ name: set, unavailable, load });
}
