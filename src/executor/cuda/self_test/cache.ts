/** Outcomes of self-tests by device, driver and program, in a file each under ~/.cache/llumnix. */
import { kernelFingerprint } from "../../../../ffi/cuda_kernels/fingerprint.ts";
import { fullVersion } from "../../../core/version.ts";
import type { EngineOptions } from "../../../core/options.ts";
import type { ResolvedModel } from "../../../model/resolve.ts";
import type { SelfTestDevice, SelfTestOutcome } from "../load.ts";
import { type CudaPath, cudaPaths } from "../paths.ts";

/** What an outcome depends on, as a name of a file. */
export async function cacheKey(
  { config, dtype }: ResolvedModel,
  { info, driverVersion, softwareDevice }: SelfTestDevice,
  { blockSize, quantization, kvCacheDtype }: EngineOptions,
  plain: readonly CudaPath[],
): Promise<string> {
  const { name, computeCapability } = info;
  const kernels = await kernelFingerprint();
  const emulated = softwareDevice ? softwareKernels() : null;
  const parts = [
    ...[name, computeCapability, driverVersion, fullVersion(), kernels, emulated],
    ...[config, dtype, quantization, kvCacheDtype, blockSize, plain, cudaPaths],
  ];
  const bytes = new TextEncoder().encode(JSON.stringify(parts));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** The software device does what it is told, with the kernels that it was built with. */
function softwareKernels(): unknown {
  const settings = Deno.env.get("LLUMNIX_SOFTWARE_DEVICE") ?? "";
  const directory = Deno.env.get("LLUMNIX_CUDA_LIBRARIES") ?? "";
  const modifiedMs = fileTimeMs(`${directory}/libllumnix_kernels.so`);
  return [settings.replace(/identity=\d+/, ""), modifiedMs];
}

function fileTimeMs(path: string): number | null {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? null;
  } catch {
    return null;
  }
}

/** Null: nothing is cached, or it cannot be read. */
export async function readOutcome(key: string): Promise<SelfTestOutcome | null> {
  try {
    const { plain, warnings } = JSON.parse(await Deno.readTextFile(`${directoryOf()}/${key}.json`));
    const isKnown = Array.isArray(plain) && plain.every((path) => cudaPaths.includes(path));
    return isKnown && Array.isArray(warnings) ? { plain, warnings } : null;
  } catch {
    return null;
  }
}

/** Keeps an outcome; a cache that cannot be written costs the next start a test. */
export async function writeOutcome(key: string, outcome: SelfTestOutcome): Promise<void> {
  const directory = directoryOf();
  if (directory === null) return;
  const partial = `${directory}/${key}.${Deno.pid}.partial`;
  try {
    await Deno.mkdir(directory, { recursive: true });
    await Deno.writeTextFile(partial, JSON.stringify(outcome));
    await Deno.rename(partial, `${directory}/${key}.json`);
  } catch {
    // said above
  }
}

/** Null: this process has no home. */
function directoryOf(): string | null {
  const home = Deno.env.get("HOME");
  const cache = Deno.env.get("XDG_CACHE_HOME") || (home && `${home}/.cache`);
  return cache ? `${cache}/llumnix/self-test` : null;
}
