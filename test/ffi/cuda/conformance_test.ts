/** The suite of `Cuda` over both libraries of the software device, and over a GPU where there is one. */
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { openDriver } from "../../../ffi/cuda/driver.ts";
import { buildSoftwareDevice } from "../../../scripts/build_software_device.ts";
import { cudaConformance, type CudaUnderTest } from "../../conformance/cuda.ts";

const built = await buildSoftwareDevice();
const open = { runtime: openCudart, driver: openDriver } as const;
const apis = ["runtime", "driver"] as const;

// Work as late as the rules allow, on two devices.
const settings = "devices=2,memory=256M,order=late,progress=20";
Deno.env.set("LLUMNIX_SOFTWARE_DEVICE", settings);

for (const api of apis) {
  const from = "missing" in built ? undefined : built.directory;
  cudaConformance({
    ...{ name: `${api} API of the software device`, api, from },
    unavailable: "missing" in built ? built.missing : null,
    open: () => open[api]({ from }),
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
