import { CudaError } from "../../../../ffi/cuda/errors.ts";
import type { OpenOptions } from "../../../../ffi/library.ts";
import type { EngineOptions } from "../../../core/options.ts";
import { RoundedWeights } from "../../../model/fp8.ts";
import type { ResolvedModel } from "../../../model/resolve.ts";
import { decoderSpec } from "../../../model/structure.ts";
import type { TensorSource } from "../../../model/tensor.ts";
import { loadCpuExecutor } from "../../cpu/load.ts";
import type { Executor, ExecutorSpec } from "../../executor.ts";
import { loadCudaModel } from "../load.ts";
import type { CudaPath } from "../paths.ts";
import {
  type CaseResult,
  compareChoices,
  compareLogits,
  extraTokens,
  promptLengths,
} from "./cases.ts";

/** What a process tests. */
export interface SelfTestTask {
  readonly model: ResolvedModel;
  readonly options: EngineOptions;
  /** The device, as the driver counts those that the process sees. */
  readonly ordinal: number;
  readonly plain: readonly CudaPath[];
  /** Tokens of the longest prompt. */
  readonly longest: number;
}

/** Tokens that cannot be used are a wrong result; a device that fails is no result. */
async function choicesOf(device: Executor): Promise<readonly CaseResult[]> {
  try {
    return await compareChoices(device);
  } catch (error) {
    if (error instanceof CudaError) throw error;
    return [{ name: `tokens (${(error as Error).message})`, error: Infinity, limit: 0 }];
  }
}

/** The options of an instance, with a cache for the sequences of the test. */
export function testOptions(given: EngineOptions, longest: number): EngineOptions {
  const blocksOfSequence = Math.ceil((longest + extraTokens) / given.blockSize);
  return {
    ...given,
    numGpuBlocksOverride: promptLengths(longest).length * blocksOfSequence + 16,
    maxNumSeqs: 16,
    preemptionMode: "recompute",
    cpuThreads: 1,
    cpuKernels: null,
    tensorParallelSize: 1,
  };
}

/** Runs the comparisons in this process, which ends if a kernel faults. */
export async function runSelfTest(
  { model, options: given, ordinal, plain, longest }: SelfTestTask,
  libraries: OpenOptions = {},
): Promise<CaseResult[]> {
  const options = testOptions(given, longest);
  const spec = (device: ExecutorSpec["device"]) => ({ device, options, hostShare: 1 });
  const lease = { ordinals: [ordinal], sharedBy: 1, release() {} };
  let device: Executor | null = null, cpu: Executor | null = null;
  try {
    device = await loadCudaModel(spec("cuda"), { model, lease, plain, libraries });
    const change = (source: TensorSource) =>
      options.quantization === null
        ? source
        : new RoundedWeights(source, decoderSpec(model.config));
    cpu = await loadCpuExecutor(spec("cpu"), () => {}, model, change);
    const logits = await compareLogits(device, cpu, longest, model.dtype);
    if (plain.includes("sampling")) return logits;
    await device.close();
    // The sequences of the second comparison begin with an executor of their own.
    device = await loadCudaModel(spec("cuda"), { model, lease, plain, libraries });
    return [...logits, ...await choicesOf(device)];
  } finally {
    await device?.close();
    await cpu?.close();
  }
}
