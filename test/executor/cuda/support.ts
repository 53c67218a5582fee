/** Loads the CUDA executor on the software device of this process. */
import type { EngineOptions } from "../../../src/core/options.ts";
import { loadCudaExecutor } from "../../../src/executor/cuda/load.ts";
import type { Executor, LoadProgress } from "../../../src/executor/executor.ts";
import { configure, directory } from "../../ffi/software_device/device.ts";
import { defaultOptions } from "../cpu/harness.ts";

const settings =
  "devices=2,order=late,seed=1,progress=20,fail-work=0,hang-work=0,busy=0,memory=1G,driver=13000," +
  "kernels=plain,fail-allocation=0,fail-allocation-above=0";

/** Locks of this test process alone. */
const lockDirectory = Deno.makeTempDirSync({ prefix: "cuda-locks-" });
addEventListener("unload", () => Deno.removeSync(lockDirectory, { recursive: true }));

/** Options of the command line that tests change. */
export interface LoadOptions extends Partial<EngineOptions> {
  /** Settings of the software device. */
  readonly deviceSettings?: string;
  readonly hostShare?: number;
  readonly onProgress?: (progress: LoadProgress) => void;
}

export function load(options: LoadOptions = {}): Promise<Executor> {
  const { deviceSettings, hostShare = 1, onProgress = () => {}, ...changes } = options;
  configure(deviceSettings === undefined ? settings : `${settings},${deviceSettings}`);
  const engine: EngineOptions = { ...defaultOptions, device: "cuda", ...changes };
  const spec = { device: "cuda" as const, options: engine, hostShare };
  return loadCudaExecutor(spec, onProgress, { from: directory!, lockDirectory });
}

/** A test that is skipped, and says so, where the software device cannot be built. */
export function cudaTest(name: string, fn: () => Promise<void> | void): void {
  const skipped = directory === null ? " (skipped: no C++ compiler for the software device)" : "";
  Deno.test({ name: `cuda executor: ${name}${skipped}`, ignore: directory === null, fn });
}
