/** Loads the CUDA executor on the software device of this process. */
import type { EngineOptions } from "../../../src/core/options.ts";
import { loadCudaExecutor } from "../../../src/executor/cuda/load.ts";
import type { Executor, LoadProgress } from "../../../src/executor/executor.ts";
import { configure, directory } from "../../ffi/software_device/device.ts";
import { defaultOptions } from "../cpu/harness.ts";

export const settings =
  "devices=1,order=late,seed=1,progress=20,poison=1,fail-work=0,hang-work=0,busy=0,memory=1G,driver=13000," +
  "skip-kernel=,fail-kernel=,fail-code=700,fail-load=0,fail-cubin=0,skew-products=0,compute-capability=90," +
  `kernels=plain,fail-allocation=0,fail-allocation-above=0,identity=${Deno.pid}`;

/** Options of the command line that tests change. */
export interface LoadOptions extends Partial<EngineOptions> {
  /** Settings of the software device. */
  readonly deviceSettings?: string;
  readonly hostShare?: number;
  readonly onProgress?: (progress: LoadProgress) => void;
}

/**
 * Loads an executor; two may share the device. Both are of this thread, and a thread has one current
 * device.
 */
export function load(options: LoadOptions = {}): Promise<Executor> {
  const { deviceSettings, hostShare = 2, onProgress = () => {}, ...changes } = options;
  configure(deviceSettings === undefined ? settings : `${settings},${deviceSettings}`);
  const engine: EngineOptions = {
    ...defaultOptions,
    device: "cuda",
    allowSharedDevice: true,
    ...changes,
  };
  const spec = { device: "cuda" as const, options: engine, hostShare };
  return loadCudaExecutor(spec, onProgress, { from: directory! });
}

/** A test that is skipped, and says so, where the software device cannot be built. */
export function cudaTest(name: string, fn: () => Promise<void> | void): void {
  const skipped = directory === null ? " (skipped: no C++ compiler for the software device)" : "";
  Deno.test({ name: `cuda executor: ${name}${skipped}`, ignore: directory === null, fn });
}
