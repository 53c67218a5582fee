/** The fast paths of the CUDA executor. Each has a plain one in its place. */
import type { KernelPaths } from "../../../ffi/cuda_kernels/decoder_types.ts";
import { UsageError } from "../../core/errors.ts";
import type { EngineOptions } from "../../core/options.ts";

export const cudaPaths = [
  ...["graphs", "programmatic", "fused", "tensor-cores"] as const,
  ...["sampling", "ahead"] as const,
] as const;

/**
 * `tensor-cores`, `fused`, `programmatic`: see {@linkcode KernelPaths}. Without tensor cores the bits are
 * others; no other path changes any. `graphs`: decode steps as CUDA graphs; else a launch for each kernel. `sampling`: the device chooses tokens;
 * else the host, from logits that are read back. `ahead`: a decode step begins before the tokens of the one
 * before are read back; needs `sampling`; else one step after the other.
 */
export type CudaPath = (typeof cudaPaths)[number];

function isPath(name: string): name is CudaPath {
  return cudaPaths.some((path) => path === name);
}

/** The paths of the kernels of layers. */
export function kernelPaths(plain: readonly CudaPath[]): KernelPaths {
  return {
    tensorCores: !plain.includes("tensor-cores"),
    fused: !plain.includes("fused"),
    programmatic: !plain.includes("programmatic"),
  };
}

/**
 * The fast paths that the options turn off.
 * @throws {UsageError} `--cuda-plain-paths` names something else
 */
export function plainPathsOf(
  { cudaPlainPaths, enforceEager }: Pick<EngineOptions, "cudaPlainPaths" | "enforceEager">,
): CudaPath[] {
  const names = cudaPlainPaths ?? [];
  for (const name of names) {
    if (isPath(name) || name === "all") continue;
    throw new UsageError(
      `--cuda-plain-paths ${name}: no such path. Expected all, or some of ${cudaPaths.join(", ")}.`,
    );
  }
  return cudaPaths.filter((path) =>
    names.includes("all") || names.includes(path) || (path === "graphs" && enforceEager)
  );
}
