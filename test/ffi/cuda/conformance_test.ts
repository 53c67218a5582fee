/** The suite of `Cuda` over both libraries of the software device, and over a GPU where there is one. */
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { openDriver } from "../../../ffi/cuda/driver.ts";
import { cudaConformance, type CudaUnderTest } from "../../conformance/cuda.ts";
import { configure, directory } from "../software_device/device.ts";

const open = { runtime: openCudart, driver: openDriver } as const;
const apis = ["runtime", "driver"] as const;

/** Work as late as the rules allow, on two devices, without faults. */
const settings =
  "devices=2,memory=256M,order=late,progress=20,seed=1,poison=1,driver=13000,busy=0," +
  "fail-allocation=0,fail-allocation-above=0,fail-work=0,hang-work=0";

for (const api of apis) {
  const from = directory ?? undefined;
  cudaConformance({
    ...{ name: `${api} API of the software device`, api, from },
    unavailable: directory === null ? "no C++ compiler to build it" : null,
    open() {
      // Other tests of this process have left theirs.
      configure(settings);
      return open[api]({ from });
    },
    environment: { LLUMNIX_SOFTWARE_DEVICE: settings },
  });
}

for (const api of apis) cudaConformance(gpu(api));

function gpu(api: "runtime" | "driver"): CudaUnderTest {
  let unavailable: string | null = "no GPU";
  try {
    if (open[api]().deviceCount() > 0) unavailable = null;
  } catch {
    // No driver, no library, or a driver that does not come up: as good as no GPU.
  }
  return { name: `${api} API of the GPU`, api, unavailable, open: () => open[api]() };
}
