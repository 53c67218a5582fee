import type { ExecutorKind } from "../executor_kind.ts";

/** NVIDIA GPUs. */
export const cuda: ExecutorKind = {
  device: "cuda",
  usesHostCores: false,
  usesProfile: false,
  sharesProcess: "never",
  hasFp8: true,
  hasRanks: true,
  memory: "device",
  isPresent: () => countDeviceNodes() > 0,
  countDevices: countDeviceNodes,
  find: async (options) => (await import("../found_model.ts")).findModelFiles(options),
  load: async (spec, onProgress) => {
    const { loadCudaExecutor } = await import("./load.ts");
    const { selfTest } = await import("./self_test/self_test.ts");
    return await loadCudaExecutor(spec, onProgress, {}, selfTest);
  },
};

/** Device files that are looked for. */
const MAX_DEVICES = 64;

/**
 * Devices that NVIDIA's driver shows and that this process may use. It looks at files only: to open the
 * driver takes a second, and `--help` asks, too. The software device is never present: it is used only
 * where `--device cuda` is written.
 */
function countDeviceNodes(): number {
  const visible = Deno.env.get("CUDA_VISIBLE_DEVICES");
  if (visible !== undefined && /^\s*(-|$)/.test(visible)) return 0;
  let numNodes = 0;
  for (let ordinal = 0; ordinal < MAX_DEVICES; ordinal++) {
    try {
      if (Deno.statSync(`/dev/nvidia${ordinal}`).isCharDevice) numNodes++;
    } catch {
      // not this one
    }
  }
  if (numNodes === 0 || visible === undefined) return numNodes;
  // The driver's rule: devices after one that is no device are hidden. Parts of one (MIG) count.
  const listed = visible.split(",").map((one) => one.trim());
  const end = listed.findIndex((one) => one === "" || one.startsWith("-"));
  return end < 0 ? listed.length : end;
}
