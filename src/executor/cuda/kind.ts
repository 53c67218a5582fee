import type { ExecutorKind } from "../executor_kind.ts";

/** NVIDIA GPUs. */
export const cuda: ExecutorKind = {
  device: "cuda",
  usesHostCores: false,
  usesProfile: false,
  sharesProcess: "never",
  hasFp8: true,
  memory: "device",
  isPresent: hasDeviceNode,
  find: async (options) => (await import("../found_model.ts")).findModelFiles(options),
  load: async (spec, onProgress) => {
    const { loadCudaExecutor } = await import("./load.ts");
    const { selfTest } = await import("./self_test/self_test.ts");
    return await loadCudaExecutor(spec, onProgress, {}, selfTest);
  },
};

/**
 * Whether NVIDIA's driver shows a device that this process may use. It looks at files only: to open the
 * driver takes a second, and `--help` asks, too. The software device is never present: it is used only
 * where `--device cuda` is written.
 */
function hasDeviceNode(): boolean {
  const visible = Deno.env.get("CUDA_VISIBLE_DEVICES");
  if (visible !== undefined && /^\s*(-|$)/.test(visible)) return false;
  for (let ordinal = 0; ordinal < 16; ordinal++) {
    try {
      if (Deno.statSync(`/dev/nvidia${ordinal}`).isCharDevice) return true;
    } catch {
      // not this one
    }
  }
  return false;
}
